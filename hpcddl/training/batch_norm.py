"""Batch-norm statistics of the consensus w_a, at which no learner has trained."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from mpi4py import MPI
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_first
from hpcddl.data.network_input import network_input


@dataclass(frozen=True)
class Recomputed:
    """Statistics over `batches` training batches, which the learners divide among them."""

    layers: list[_BatchNorm]
    batches: int

    @contextmanager
    def inside(
        self, model: nn.Module, batches: Generator[tuple[Tensor, Tensor]], world: World
    ) -> Iterator[None]:
        """Inside, `model` holds statistics of its present weights; outside, those it had before.

        They are what torch.optim.swa_utils.update_bn computes with dropout off: running_mean is the
        mean of the batch means, running_var the mean of the unbiased batch variances (so the spread
        of the batch means is not in it, as it is not in the statistics of training either). Learner
        j takes the first of its own `batches`, and each counts alike. Nothing is drawn at random.
        """
        buffers = [buffer for layer in self.layers for buffer in layer.buffers()]
        saved = [buffer.clone() for buffer in buffers]
        momenta = [layer.momentum for layer in self.layers]
        mine = len(range(world.rank, self.batches, world.size))
        try:
            for layer in self.layers:
                layer.reset_running_stats()
                layer.momentum = None  # a cumulative average
            with closing(batches):
                self._forward(model, islice(batches, mine))
            self._combine(mine, world.comm)
            yield
        finally:
            for layer, momentum in zip(self.layers, momenta, strict=True):
                layer.momentum = momentum
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)

    @torch.no_grad()
    def _forward(self, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        was_training = model.training
        model.eval()
        for layer in self.layers:
            layer.train()
        dtype = next(model.parameters()).dtype
        for features, _ in batches:
            model(network_input(features, dtype))
        model.train(was_training)

    def _combine(self, mine: int, comm: MPI.Intracomm) -> None:
        """The mean over all batches, of which `mine` were this learner's, summed in float64."""
        statistics = [b for layer in self.layers for b in layer.buffers() if b.is_floating_point()]
        sums = mine * torch.cat([b.double() for b in statistics]).cpu()
        comm.Allreduce(MPI.IN_PLACE, sums.numpy(), MPI.SUM)
        means = (sums / self.batches).split([len(b) for b in statistics])
        for buffer, mean in zip(statistics, means, strict=True):
            buffer.copy_(mean)


def takes_one_sample(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether `model` can be trained on a batch of one sample of `shape`.

    Batch norm cannot where a layer sees a single pixel: one value has no variance. The model and
    the random numbers to come are left as they were.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return True
    saved = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    first = next(model.parameters())
    was_training = model.training
    devices = [first.device] if first.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.train()(torch.zeros(1, *shape, dtype=first.dtype, device=first.device))
    except ValueError:  # what batch norm raises; nothing else in a network does
        return False
    finally:
        model.train(was_training)
        for buffer, value in saved:
            buffer.copy_(value)
    return True


def averaged(model: nn.Module, name: str, available: int) -> None:
    """The mean of the learners' own statistics, which the consensus holds already."""


def recomputed(
    model: nn.Module, name: str, available: int, *, batches: PositiveInt = 16
) -> Recomputed:
    """At w_a, over `batches` training batches in all, each the size of a (micro-)batch.

    Raises:
        UserError: the model, called `name`, has no batch norm, or an epoch is of fewer batches.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        raise UserError(f"batch_norm=recomputed: model {name} has no batch norm; must be averaged")
    if batches > available:
        raise UserError(
            f"batch_norm.batches={batches}: must not exceed the {available} batches of an epoch"
        )
    return Recomputed(layers, batches)


BATCH_NORM = Table(
    {"averaged": averaged, "recomputed": recomputed},
    own=partial(with_first, count=3),
)
