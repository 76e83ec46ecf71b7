"""Synchronous SGD: all learners hold the same weights and average their gradients."""

import os
import time

import horovod.torch as hvd
import torch
from pydantic import NonNegativeInt
from torch import nn

from hpcddl.communication.exchange import ring_allreduce_bytes
from hpcddl.strategies.base import Strategy
from hpcddl.world import World


class SSGD(Strategy):
    """w <- w - alpha * u with u from mean_j g_j(w) (paper A eq. 1, paper B eq. 1).

    Horovod starts the allreduce of each gradient as soon as backward has made it. With
    `fusion_mib` 0 each tensor is reduced by itself, in an order that does not depend on timing,
    so a run repeats bit for bit on the same layout; fusing tensors (Horovod's own default is
    64 MiB) saves latency on networks of many small tensors and gives that up.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        seed: int,
        *,
        fusion_mib: NonNegativeInt = 0,
    ) -> None:
        super().__init__(model, world)
        os.environ["HOROVOD_FUSION_THRESHOLD"] = str(fusion_mib << 20)
        hvd.init(comm=world.comm)
        self.fusion_mib = fusion_mib
        self.optimizer = self._horovod = hvd.DistributedOptimizer(
            optimizer, model.named_parameters()
        )
        self._bytes = ring_allreduce_bytes(self.weights.empty(), world.size)

    def update(self) -> None:
        began = time.perf_counter()
        self._horovod.synchronize()
        self.traffic.seconds += time.perf_counter() - began
        self.traffic.bytes_sent += self._bytes
        self.clip()
        with self._horovod.skip_synchronize():
            self._horovod.step()
        self.step += 1

    def describe(self) -> str:
        order = "fixed order" if self.fusion_mib == 0 else f"fused up to {self.fusion_mib} MiB"
        return f"SSGD: Horovod allreduce of gradients over {self.world.size} learners, {order}"
