"""Decentralised parallel SGD: each learner averages its weights with neighbours."""

import time
from typing import Annotated

import torch
from torch import nn

from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.communication.topology import TOPOLOGIES, spectral_gap
from hpcddl.options import Choice, From
from hpcddl.strategies.base import Strategy
from hpcddl.world import World

RANDOM_PAIR = Choice("random_pair", {})


class DPSGD(Strategy):
    """w_j(t+1) = sum_k A_jk w_k(t) - alpha * u_j(w_j(t)) (paper A eq. 2; Lian et al. 2017).

    The exchange of w_j(t) runs under forward and backward. The optimizer then steps at w_j(t), so
    that weight decay and momentum see w_j(t) and not the mixture, and the mixture minus w_j(t) is
    added from the exchange's own buffers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        seed: int,
        *,
        topology: Annotated[Choice, From(TOPOLOGIES)] = RANDOM_PAIR,
    ) -> None:
        super().__init__(model, world)
        self.optimizer = optimizer
        # Agreed on before the exchange's first collective: a file may be missing on one node.
        self.topology = world.together(lambda: topology.build(TOPOLOGIES, world.size, seed))
        self.topology_name = topology.name
        self.exchange = NeighbourExchange(world.comm, self.weights)

    def before_forward(self) -> None:
        began = time.perf_counter()
        self.exchange.start(self.topology(self.step))
        self.traffic.seconds += time.perf_counter() - began

    def update(self) -> None:
        began = time.perf_counter()
        self.exchange.finish()
        arrived = time.perf_counter()
        self.clip()
        self.optimizer.step()
        stepped = time.perf_counter()
        self.exchange.mix()
        self.traffic.seconds += (arrived - began) + (time.perf_counter() - stepped)
        self.traffic.bytes_sent = self.exchange.bytes_sent
        self.step += 1

    def describe(self) -> str:
        gap = spectral_gap(self.topology, self.world.size)
        return (
            f"DPSGD: {self.topology_name} over {self.world.size} learners, spectral gap {gap:.3f}, "
            f"weights through {self.exchange.route}"
        )
