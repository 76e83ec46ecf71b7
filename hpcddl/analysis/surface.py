"""The loss around a run's consensus, on a grid or along lines (papers A fig. 3, B fig. 13)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.points import values_at
from hpcddl.analysis.sample_loss import (
    batch_norm_layers,
    batch_statistics,
    draw_sample,
    loss_and_error,
)
from hpcddl.common.files import checksum
from hpcddl.common.flat import FlatWeights
from hpcddl.run.trained import Trained

Array = NDArray[np.float64]
Offset = tuple[tuple[int, float], ...]
"""How far along which directions, from the centre."""


@dataclass(frozen=True)
class SurfacePlan:
    """Where the loss is computed, and on which data.

    Direction k is drawn from `seed` + k, the sample from `seed`: the same for every run.
    """

    points: int  # K, along each direction
    scale: float  # -scale .. scale
    directions: int  # lines, each along its own; 0: the grid along two
    normalise: str  # see directions.NORMALISE
    of: str  # train or heldout
    samples: int  # at most so many
    batch: int | None  # samples at once; None: what a learner of the run processed at once
    batch_norm: str  # eval: the consensus's statistics; train: those of each batch
    seed: int

    @property
    def along(self) -> Array:
        """(K,) the places on a direction."""
        return np.linspace(-self.scale, self.scale, self.points)

    def offsets(self) -> list[Offset]:
        """K x K places, the second direction's changing fastest, or K on each line; the centre."""
        along = self.along.tolist()
        if self.directions:
            lines = product(range(self.directions), along)
            return [*(((k, at),) for k, at in lines), ()]
        return [*(((0, a), (1, b)) for a, b in product(along, along)), ()]


@dataclass(frozen=True)
class Landscape:
    """The results of a plan around one run's consensus."""

    name: str
    facts: dict[str, Any]  # which run, which checkpoint, which samples
    loss: Array  # (K, K) by place on the first and second direction, or (N, K) by line and place
    error: Array  # likewise, 0 .. 1
    centre: tuple[float, float]  # loss and error

    @property
    def mean_rise(self) -> float:
        """Mean of L(w) - L(w_a) over all places, lower if flatter. NaN if one of them is."""
        return float(self.loss.mean() - self.centre[0])


def survey(name: str, run: Path, trained: Trained, plan: SurfacePlan, kept: Path) -> Landscape:
    """Takes loss and error at every place of `plan`, on all ranks together. Collective.

    Args:
        kept: the file of finished points, from which a killed survey goes on.
    """
    model, world = trained.model, trained.world
    dataset = trained.train_set if plan.of == "train" else trained.heldout
    sample = world.together(lambda: draw_sample(dataset, plan.samples, plan.seed, world.device))
    batch = plan.batch or trained.micro_batch
    weights = FlatWeights(model)
    centre = weights.read(weights.empty())

    @lru_cache(maxsize=2)
    def direction(number: int) -> Tensor:
        weights.write(centre)  # which filters are normalised to
        return random_direction(model, plan.seed + number, plan.normalise)

    def value(number: int) -> tuple[float, float]:
        place = centre.clone()
        for k, at in offsets[number]:
            place.add_(direction(k), alpha=at)
        weights.write(place)
        return loss_and_error(trained.network, sample, batch)

    offsets = plan.offsets()
    facts = {
        "run": str(run),
        "strategy": trained.config.strategy.name,
        "epoch": trained.checkpoint.position.epoch,
        "updates": trained.checkpoint.position.steps,
        "data": trained.config.data.options["path"],
        "of": plan.of,
        "samples": len(sample),
        "available_samples": sample.available,
        "batch": batch,
        "batch_norm": batch_norm_said(trained, plan.batch_norm, batch),
    }
    own = batch_statistics(model) if plan.batch_norm == "train" else nullcontext()
    settings = {**asdict(plan), **identity(run, trained), "batch": batch}
    with alone(trained).statistics(), own:
        table = values_at(len(offsets), value, 2, kept, settings, world, f"landscape of {name}")
    weights.write(centre)
    loss, error = (column.reshape(-1, plan.points) for column in table[:-1].T)
    return Landscape(name, facts, loss, error, (float(table[-1, 0]), float(table[-1, 1])))


def alone(trained: Trained) -> Trained:
    """Makes this rank a world of its own, so that sums do not depend on the number of ranks."""
    return replace(trained, world=replace(trained.world, comm=MPI.COMM_SELF))


def identity(run: Path, trained: Trained) -> dict[str, Any]:
    """Identifies a network and its data: equal for two that are the same."""
    return {
        "config": checksum(run / "config.yaml"),
        "checkpoint": sorted(trained.checkpoint.files.values()),
        "data": trained.config.data.options["fingerprint"],
    }


def batch_norm_said(trained: Trained, mode: str, batch: int) -> str:
    """Says in words which batch-norm statistics the losses use."""
    if not batch_norm_layers(trained.model):
        return "the network has none"
    if mode == "train":
        return f"statistics of each batch of at most {batch}"
    return f"the run's own evaluation's statistics ({trained.config.batch_norm.name})"
