"""The curvature of the loss at a run's consensus and around it (paper A fig. 4, B figs. 4a, 14)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.eigenvalues import extreme_eigenvalues
from hpcddl.analysis.product_count import ProductCount
from hpcddl.analysis.rank_zero import Array, Product
from hpcddl.analysis.sample_loss import batch_norm_layers, batch_statistics, draw_sample
from hpcddl.analysis.shared_hessian import SharedHessian, batches_of_rank
from hpcddl.analysis.spectral_density import Quadrature, quadrature, rademacher
from hpcddl.analysis.surface import batch_norm_said
from hpcddl.common.errors import UserError
from hpcddl.common.flat import FlatWeights
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run.trained import Trained


@dataclass(frozen=True)
class SpectrumPlan:
    """What to compute of the Hessian, and on which sample.

    Direction k is drawn from `seed` + k, the sample and all iterations' starts from `seed`.
    """

    of: str  # train or heldout
    samples: int  # at most so many
    batch: int | None  # samples at once; None: what a learner of the run processed at once
    batch_norm: str  # eval: the consensus's statistics; train: those of each batch
    top: int  # K largest eigenvalues
    tolerance: float  # see extreme_eigenvalues
    probes: int  # of the density; 0: no density
    steps: int  # of Lanczos, for each probe
    grid: int  # points along each of two directions; 0: none
    scale: float  # -scale .. scale
    normalise: str  # see directions.NORMALISE
    seed: int
    memory: float  # GiB of each rank for graphs of gradients; products are the same

    @property
    def along(self) -> Array:
        """(grid,) the places on a direction."""
        return np.linspace(-self.scale, self.scale, self.grid)


@dataclass(frozen=True)
class Curvature:
    """The results of a plan at one run's consensus."""

    name: str
    facts: dict[str, Any]  # which run, checkpoint and samples; what a product cost
    top: Array  # (K,) the largest eigenvalues, falling
    least: float  # lambda_min
    spectrum: list[Quadrature]  # one for each probe, if any
    grid: Array | None  # (grid, grid, 2) lambda_max, lambda_min by place along both directions

    @property
    def ratio(self) -> float:
        """|lambda_min| / |lambda_max| at the consensus (paper A sec. 4.1)."""
        return abs(self.least / self.top[0]) if self.top[0] else np.nan

    @property
    def ratios(self) -> Array:
        """(grid, grid) the same around it: the lower, the closer to convex; NaN for 0 / 0."""
        assert self.grid is not None
        largest, least = np.moveaxis(self.grid, -1, 0)
        return np.abs(
            np.divide(least, largest, out=np.full_like(least, np.nan), where=largest != 0)
        )


def survey(name: str, run: Path, trained: Trained, plan: SpectrumPlan) -> Curvature:
    """Computes everything that `plan` asks for; the ranks share each product. Collective.

    Autocast is left out: 16-bit products would blur all but the largest eigenvalues.

    Raises:
        UserError: too few weights or samples for the plan; a run that has diverged; what
            `extreme_eigenvalues` raises.
    """
    model, world = trained.model, trained.world
    dataset = trained.train_set if plan.of == "train" else trained.heldout
    batch = plan.batch or trained.micro_batch
    sample = world.together(
        lambda: draw_sample(dataset, plan.samples, plan.seed, torch.device("cpu"))
    )
    own = plan.batch_norm == "train" and bool(batch_norm_layers(model))
    size = FlatWeights(model).size
    world.together(lambda: _check(size, plan.top, len(sample), batch, own))
    mine = [
        (features.to(world.device), labels.to(world.device))
        for features, labels in batches_of_rank(sample, batch, world.rank, world.size, whole=own)
    ]
    progress = ProductCount(f"curvature of {name}", shown=world.rank == 0)
    statistics = batch_statistics(model) if own else nullcontext()
    with progress as count, trained.statistics(), statistics:

        def here() -> SharedHessian:
            predictions, memory = sample.labels.numel(), plan.memory * 2**30
            return SharedHessian(model, mine, predictions, world, count, memory)

        hessian = here()
        gradient_seconds, product_seconds = hessian.seconds()
        gradient_norm = float(torch.linalg.vector_norm(hessian.gradient()))
        world.together(lambda: _check_finite(gradient_norm, run, trained))
        top, least = _ends(hessian, "ends of the spectrum", plan.top, plan)
        spectrum = hessian.solve("density", lambda p: _probed(p, size, plan))
        del hessian  # and the graph that it may keep
        grid = _around(model, here, plan) if plan.grid else None
    facts = {
        **_described(run, trained),
        "of": plan.of,
        "samples": len(sample),
        "available_samples": sample.available,
        "batch": batch,
        "batch_norm": batch_norm_said(trained, plan.batch_norm, batch),
        "weights": size,
        "gradient_norm": gradient_norm,
        "products": count.done,
        "ranks": world.size,
        "gradient_seconds": gradient_seconds,
        "product_seconds": product_seconds,
    }
    return Curvature(name, facts, top, least, spectrum, grid)


def _described(run: Path, trained: Trained) -> dict[str, Any]:
    config, at = trained.config, trained.checkpoint.position
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    return {
        "run": str(run),
        "strategy": config.strategy.name,
        "epoch": at.epoch,
        "updates": at.steps,
        "learning_rate": schedule(at.epoch),  # of the epoch that would follow
        "data": config.data.options["path"],
    }


def _ends(hessian: SharedHessian, what: str, top: int, plan: SpectrumPlan) -> tuple[Array, float]:
    return hessian.solve(
        what, lambda p: extreme_eigenvalues(p, hessian.size, top, plan.tolerance, plan.seed)
    )


def _probed(product: Product, size: int, plan: SpectrumPlan) -> list[Quadrature]:
    probes = (rademacher(size, plan.seed, number) for number in range(plan.probes))
    return [quadrature(product, probe, plan.steps) for probe in probes]


def _around(model: nn.Module, here: Callable[[], SharedHessian], plan: SpectrumPlan) -> Array:
    """(grid, grid, 2) lambda_max and lambda_min; restores the weights. Collective.

    Args:
        here: the Hessian at the present weights.
    """
    weights = FlatWeights(model)
    centre = weights.read(weights.empty())
    first, second = (random_direction(model, plan.seed + k, plan.normalise) for k in range(2))
    found = np.empty((plan.grid, plan.grid, 2))
    points = list(product(range(plan.grid), repeat=2))
    for number, (i, j) in enumerate(points, 1):
        place = centre.add(first, alpha=plan.along[i]).add_(second, alpha=plan.along[j])
        weights.write(place)
        what = f"grid point {number} of {len(points)}"
        (largest,), found[i, j, 1] = _ends(here(), what, 1, plan)
        found[i, j, 0] = largest
    weights.write(centre)
    return found


def _check(size: int, top: int, samples: int, batch: int, own_statistics: bool) -> None:
    if top >= size:
        raise UserError(f"--top: {top}: must be below the {size} weights of the network")
    if own_statistics and samples // ceil(samples / batch) < 2:
        raise UserError(
            f"--batch: {batch}: with --batch-norm train must make "
            f"batches of two or more of {samples} samples"
        )


def _check_finite(gradient_norm: float, run: Path, trained: Trained) -> None:
    if not isfinite(gradient_norm):
        raise UserError(
            f"run {run}: its gradient is not finite after {trained.checkpoint.position.epoch} "
            "epochs: it has diverged; give an earlier --epoch"
        )
