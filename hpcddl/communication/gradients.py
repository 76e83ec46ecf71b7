"""Gradients averaged by Horovod while backward still runs, until it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import horovod.torch as hvd
import torch
from mpi4py import MPI
from torch import Tensor, nn

from hpcddl.cluster.links import links_of
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.communication.exchange import ring_allreduce_bytes
from hpcddl.communication.horovod import finish, start

_MOST = 2**31  # Horovod counts a tensor's elements in 31 bits


class GradientMean:
    """Starts an allreduce of each gradient as soon as backward has made it.

    Horovod's own optimizer does the same but cannot be told to stop, as an algorithm must that
    averages gradients in its first phase only, and steps the weights itself, where an algorithm may
    have more to do. With `fusion_mib` 0 each tensor is reduced by itself, in an order that does not
    depend on timing, so a run repeats bit for bit on the same layout; fusing tensors saves latency
    on networks of many small tensors and gives that up.
    """

    def __init__(
        self, model: nn.Module, world: World, fusion_mib: int, group: MPI.Intracomm | None = None
    ) -> None:
        """Averages over the learners of `group` (None: all)."""
        comm = group or world.comm
        self._set = start(world, fusion_mib, group)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._names, self._parameters = zip(*named, strict=True)
        for name, parameter in named:
            if parameter.numel() >= _MOST:
                raise UserError(
                    f"model: {name} has {parameter.numel():,} weights; must be below 2^31 in one "
                    "tensor for Horovod"
                )
        self._bytes = [ring_allreduce_bytes(p, comm.size) for p in self._parameters]
        self.bytes_sent = sum(self._bytes)
        """By each learner for one mean."""
        self._links = links_of(comm).gradients(comm, len(named), fusion_mib << 20)
        self._paused = False
        self._running: dict[int, int] = {}  # parameter -> Horovod's handle
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._made, i))
            for i, parameter in enumerate(self._parameters)
        ]

    def finish(self) -> None:
        """After backward: every gradient is the learners' mean."""
        for i, parameter in enumerate(self._parameters):
            if i not in self._running:
                # Unused in the last pass here, but perhaps not on other learners, who would wait.
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._start(i, parameter)
        finish(self._running.values())
        self._links.arrive()
        self._running.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, backward adds to the gradients and starts nothing."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def stop(self) -> None:
        """From now on gradients stay each learner's own."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _made(self, i: int, parameter: Tensor) -> None:
        """Hears of a gradient that backward has made."""
        if self._paused:
            return
        if i in self._running:
            raise UserError(
                f"backward: a second gradient of {self._names[i]} in one update, while the mean of "
                "the first is under way; fix: `with learner.accumulate():` around all backward "
                "passes but the last"
            )
        self._start(i, parameter)

    def _start(self, i: int, parameter: Tensor) -> None:
        self._links.ready(i, self._bytes[i])
        self._running[i] = hvd.allreduce_async_(
            parameter.grad, op=hvd.Average, name=self._names[i], process_set=self._set
        )
