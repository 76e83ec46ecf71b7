"""Decentralised parallel SGD: each learner averages its weights with neighbours."""

from typing import Annotated, Any, Literal

import torch
from pydantic import PositiveInt
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice, From
from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.communication.gradients import GradientMean
from hpcddl.communication.groups import block_of, counterparts
from hpcddl.communication.horovod import FusionMib
from hpcddl.communication.topology import TOPOLOGIES, delay_fault, lazy, spectral_gap
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.base import Strategy

RANDOM_PAIR = Choice("random_pair", {})


class DPSGD(Strategy):
    """w_j(t+1) = sum_k A_jk w_k(t) - alpha * u_j(w_j(t)) (paper A eq. 2; Lian et al. 2017).

    The exchange of w_j(t) runs under forward and backward. The optimizer then steps at w_j(t), so
    that weight decay and momentum see w_j(t) and not the mixture, and the mixture minus w_j(t) is
    added from the exchange's own buffers.

    `steps` H above 1 mixes at every H-th step only. `delayed` adds the mixture one exchange late,

        w_j(t+1) = w_j(t) - alpha u_j(t) + sum_k A_jk [w_k(t-1) - w_j(t-1)],

    so that a whole step more hides it (after Zhang et al. 2021); A is made lazy, (I + A) / 2.
    `super_learners` lets the learners of a node, or that many consecutive ones, average gradients
    at every step and mix as one learner does (Zhang et al. 2019); Horovod averages, see
    `GradientMean` for `fusion_mib`. `exchange_dtype` is what the weights travel as.
    """

    def __init__(
        self,
        model: nn.Module,
        local: GradientStep,
        world: World,
        seed: int,
        *,
        topology: Annotated[Choice, From(TOPOLOGIES)] = RANDOM_PAIR,
        steps: PositiveInt = 1,
        delayed: bool = False,
        super_learners: Literal["none", "node"] | PositiveInt = "none",
        exchange_dtype: Literal["bfloat16", "float16"] | None = None,
        fusion_mib: FusionMib = 0,
    ) -> None:
        super().__init__(model, local, world)
        self.steps, self.delayed = steps, delayed
        group = None
        if super_learners != "none":
            group = block_of(world, None if super_learners == "node" else super_learners)
        among = counterparts(world, group) if group else world.comm
        self.size = among.size
        """How many learners, or super-learners, mix: the size of the graph."""
        # Agreed on before the exchange's first collective: a file may be missing on one node.
        made = world.together(lambda: topology.build(TOPOLOGIES, self.size, seed))
        self.topology = lazy(made) if delayed else made
        self.topology_name = topology.name
        self.spectral_gap = spectral_gap(self.topology, self.size)
        fault = delay_fault(self.topology, self.size) if delayed else None
        if fault:
            raise UserError(f"strategy.delayed=true: diverges with {topology.name}: {fault}")
        dtype = getattr(torch, exchange_dtype) if exchange_dtype else None
        # Two with a delay: one arrives while the next leaves.
        self._exchanges = [
            NeighbourExchange(among, self.weights, group, dtype) for _ in range(1 + delayed)
        ]
        self._group = group
        several = group is not None and group.size > 1
        self._gradients = GradientMean(model, world, fusion_mib, group) if several else None

    def before_forward(self) -> None:
        if self._due():
            rounds = self.step // self.steps
            with self.traffic.timed():
                self._exchanges[rounds % 2 if self.delayed else 0].start(self.topology(rounds))

    def update(self) -> None:
        if self._gradients is not None:
            with self.traffic.timed():
                self._gradients.finish()
            self.traffic.sent(self._gradients.bytes_sent)
        self.take_step()
        if self._due():
            rounds = self.step // self.steps
            arriving = self._exchanges[(rounds - 1) % 2 if self.delayed else 0]
            with self.traffic.timed():
                arriving.finish()
                arriving.mix()
            self.traffic.sent(arriving.bytes_sent)
        self.step += 1

    def describe(self) -> str:
        every = "" if self.steps == 1 else f" every {self.steps} steps"
        who = f"{self.size} learners"
        if self._group is not None:
            who = f"{self.size} super-learners of {self._group.size}"
        late = ", one exchange late (A lazy)" if self.delayed else ""
        return (
            f"DPSGD: {self.topology_name} over {who}{every}{late}, "
            f"spectral gap {self.spectral_gap:.3f}, weights through {self._exchanges[0].route}"
        )

    def state_dict(self) -> dict[str, Any]:
        pending = self._last_started().state_dict() if self.delayed else None
        return {**super().state_dict(), "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["pending"] is not None:
            self._last_started().load_state_dict(state["pending"])

    def _due(self) -> bool:
        """Whether this step is one that mixes."""
        return (self.step + 1) % self.steps == 0

    def _last_started(self) -> NeighbourExchange:
        """Finds the exchange that a delayed rule's next update mixes; called between updates."""
        return self._exchanges[(self.step // self.steps - 1) % 2]
