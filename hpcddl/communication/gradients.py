"""Gradients averaged by Horovod while backward still runs, for as long as it is wanted."""

from __future__ import annotations

import os
from functools import partial

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from hpcddl.communication.exchange import ring_allreduce_bytes
from hpcddl.world import World


class GradientMean:
    """Starts an allreduce of each gradient as soon as backward has made it.

    Horovod's own optimizer does the same but cannot be told to stop, as an algorithm must that
    averages gradients in its first phase only. With `fusion_mib` 0 each tensor is reduced by
    itself, in an order that does not depend on timing.
    """

    def __init__(self, model: nn.Module, world: World, fusion_mib: int) -> None:
        os.environ["HOROVOD_FUSION_THRESHOLD"] = str(fusion_mib << 20)
        hvd.init(comm=world.comm)
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._running: dict[str, int] = {}
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(partial(self._start, name))
            for name, parameter in self._parameters.items()
        ]
        vector = torch.nn.utils.parameters_to_vector(self._parameters.values()).detach()
        self.bytes_sent = ring_allreduce_bytes(vector, world.size)
        """By each learner for one mean."""

    def finish(self) -> None:
        """After backward: every gradient is the learners' mean."""
        for name, parameter in self._parameters.items():
            if name not in self._running:
                # Unused in the last pass here, but perhaps not on other learners, who would wait.
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._start(name, parameter)
        for handle in self._running.values():
            hvd.synchronize(handle)
        self._running.clear()

    def stop(self) -> None:
        """From now on gradients stay each learner's own."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _start(self, name: str, parameter: Tensor) -> None:
        self._running[name] = hvd.allreduce_async_(parameter.grad, op=hvd.Average, name=name)
