"""Synchronous SGD: all learners hold the same weights and average their gradients."""

from torch import nn

from hpcddl.cluster.world import World
from hpcddl.communication.gradients import GradientMean
from hpcddl.communication.horovod import FusionMib
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.base import Strategy


class SSGD(Strategy):
    """w <- w - alpha * u with u from mean_j g_j(w) (paper A eq. 1, paper B eq. 1).

    Horovod averages each gradient while backward makes the next; see `GradientMean` for
    `fusion_mib`.
    """

    spectral_gap = 1.0
    _gradients: GradientMean

    def __init__(
        self,
        model: nn.Module,
        local: GradientStep,
        world: World,
        seed: int,
        *,
        fusion_mib: FusionMib = 0,
    ) -> None:
        super().__init__(model, local, world)
        self.fusion_mib = fusion_mib
        self._gradients = GradientMean(model, world, fusion_mib)

    def update(self) -> None:
        with self.traffic.timed():
            self._gradients.finish()
        self.traffic.sent(self._gradients.bytes_sent)
        self.take_step()
        self.step += 1

    def describe(self) -> str:
        order = "fixed order" if self.fusion_mib == 0 else f"fused up to {self.fusion_mib} MiB"
        return f"SSGD: Horovod allreduce of gradients over {self.world.size} learners, {order}"
