"""The straight line through the consensus of two runs (paper B fig. 4b)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcddl.analysis.points import values_at
from hpcddl.analysis.sample_loss import Sample, batch_norm_layers, draw_sample, loss_and_error
from hpcddl.analysis.surface import alone, identity
from hpcddl.common.errors import UserError
from hpcddl.common.flat import FlatWeights
from hpcddl.data import Dataset
from hpcddl.run.trained import Trained
from hpcddl.training.batch_norm import Recomputed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Which points of (1 - t) w_A + t w_B are evaluated, and on which data."""

    begin: float
    end: float
    points: int
    samples: int  # of each set, at most
    batch: int | None  # samples at once; None: what a learner of run A processed at once
    batch_norm: str  # recomputed or interpolated
    statistics_batches: int  # of the training set, where recomputed
    seed: int

    @property
    def at(self) -> Array:
        """(K,) t."""
        return np.linspace(self.begin, self.end, self.points)


@dataclass(frozen=True)
class Losses:
    """Losses and errors on both sets at each t, (K,) each; errors from 0 to 1."""

    facts: dict[str, Any]
    train_loss: Array
    train_error: Array
    heldout_loss: Array
    heldout_error: Array


def interpolate(
    runs: tuple[Path, Path], ends: tuple[Trained, Trained], line: Line, kept: Path
) -> Losses:
    """Loss and error along the line, on the data of run A, by all ranks together. Collective.

    Raises:
        UserError: the runs' networks differ.
    """
    a, b = ends
    world = a.world
    world.together(lambda: _refuse_others(runs, a.model, b.model))
    weights = FlatWeights(a.model)
    begin = weights.read(weights.empty())
    end = FlatWeights(b.model).read(weights.empty())
    layers = batch_norm_layers(a.model)
    begin_statistics, end_statistics = (_statistics(trained) for trained in ends)
    batch = line.batch or a.micro_batch

    def drawn(dataset: Dataset, samples: int, seed: int) -> Sample:
        return world.together(lambda: draw_sample(dataset, samples, seed, world.device))

    train = drawn(a.train_set, line.samples, line.seed)
    heldout = drawn(a.heldout, line.samples, line.seed)
    most = line.statistics_batches * batch
    of_statistics = drawn(a.train_set, most, line.seed + 1)
    recomputed = Recomputed(layers, ceil(len(of_statistics) / batch))
    own = alone(a).world  # each rank is at a point of its own
    at = line.at.tolist()

    def statistics(t: float) -> AbstractContextManager[None]:
        if not layers:
            return nullcontext()
        if line.batch_norm == "interpolated":
            return _interpolated(a.model, begin_statistics, end_statistics, t)
        return recomputed.inside(a.network, of_statistics.batches(batch), own)

    def value(number: int) -> tuple[float, ...]:
        t = at[number]
        weights.write(torch.lerp(begin, end, t))
        with statistics(t):
            return (
                *loss_and_error(a.network, train, batch),
                *loss_and_error(a.network, heldout, batch),
            )

    settings = {
        **asdict(line),
        "batch": batch,
        "a": identity(runs[0], a),
        "b": identity(runs[1], b),
    }
    what = f"interpolation on {world.size} ranks"
    table = values_at(line.points, value, 4, kept, settings, world, what)
    facts = {
        "runs": [str(run) for run in runs],
        "epochs": [trained.checkpoint.position.epoch for trained in ends],
        "strategies": [trained.config.strategy.name for trained in ends],
        "data": a.config.data.options["path"],
        "train_samples": len(train),
        "heldout_samples": len(heldout),
        "batch": batch,
        "batch_norm": _said(line, recomputed, batch),
    }
    return Losses(facts, *table.T.copy())


def _buffers(model: nn.Module) -> list[Tensor]:
    """Means and variances of all batch norms."""
    layers = batch_norm_layers(model)
    return [b for layer in layers for b in layer.buffers() if b.is_floating_point()]


def _statistics(trained: Trained) -> list[Tensor]:
    """The statistics with which the run was evaluated."""
    with alone(trained).statistics():
        return [buffer.clone() for buffer in _buffers(trained.model)]


@contextmanager
def _interpolated(
    model: nn.Module, begin: list[Tensor], end: list[Tensor], t: float
) -> Iterator[None]:
    """Inside, statistics are (1 - t) of one run's plus t of the other's; afterwards undefined."""
    for buffer, one, other in zip(_buffers(model), begin, end, strict=True):
        buffer.copy_(torch.lerp(one, other, t))
    yield


def _said(line: Line, recomputed: Recomputed, batch: int) -> str:
    if not recomputed.layers:
        return "the network has none"
    if line.batch_norm == "interpolated":
        return "statistics interpolated as the weights are"
    return (
        f"statistics of each point's own on {recomputed.batches} training batches of at most "
        f"{batch}"
    )


def _refuse_others(runs: tuple[Path, Path], a: nn.Module, b: nn.Module) -> None:
    shapes = [[(name, tuple(p.shape)) for name, p in m.named_parameters()] for m in (a, b)]
    if shapes[0] == shapes[1]:
        return
    for one, other in zip(*shapes, strict=False):
        if one != other:
            raise UserError(
                f"run {runs[1]}: {other[0]} {other[1]} where {runs[0]} has {one[0]} {one[1]}; "
                "two runs of one network can be interpolated"
            )
    raise UserError(f"run {runs[1]}: another number of layers than {runs[0]}")


def described(found: Losses) -> str:
    """What was measured, in one line."""
    facts = found.facts
    a, b = (
        f"{which} = {run} ({strategy}, epoch {epoch})"
        for which, run, strategy, epoch in zip(
            "AB", facts["runs"], facts["strategies"], facts["epochs"], strict=True
        )
    )
    return (
        f"{a}, {b}; {facts['train_samples']:,} training and {facts['heldout_samples']:,} held-out "
        f"samples; batch norm: {facts['batch_norm']}"
    )
