"""What every strategy (how learners agree) offers the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.average import Mean
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.optimizers.noise import GradientNoise


@dataclass
class Traffic:
    """What agreeing has cost this learner since its process started."""

    rounds: int = 0  # of communication: averages, exchanges, votes
    bytes_sent: int = 0
    seconds: float = 0.0  # in which the learner waited for, or worked on, communication

    def sent(self, nbytes: int) -> None:
        """Books one round, for which this learner sent so much."""
        self.rounds += 1
        self.bytes_sent += nbytes

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, time is communication's."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


class Strategy:
    """One learner's side of an algorithm; the loop calls only these.

    Between two updates no message is in flight that `state_dict` does not wait for, so a checkpoint
    is safe there.
    """

    may_skip_steps = True  # of one learner alone, whose gradient has overflowed
    clip_norm: float | None = None  # of the gradient that is stepped along; None: any
    gradient_noise: GradientNoise | None = None
    loss_scale: LossScale | None = None  # of gradients that may overflow
    spectral_gap: float | None = None  # of the mixing matrix, of those who mix in every step

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
        self.model = model
        self.optimizer = optimizer
        self.world = world
        self.weights = FlatWeights(model)
        self.traffic = Traffic()
        self.step = 0  # updates so far
        self.epoch = 0.0  # progress of the run, which the loop tells before each step

    def before_forward(self) -> None:
        """Starts the communication that overlaps forward and backward."""

    def update(self) -> None:
        """After backward: finishes communication and steps the weights."""
        raise NotImplementedError

    def take_step(self) -> None:
        """The optimizer steps along the gradient as it is: the learners' mean, or this one's own.

        It is unscaled first, and u_j is 0 where it has overflowed. Then all tensors are clipped as
        one vector, g <- g * min(1, clip_norm / |g|) (Pascanu et al. 2013), and noise is added.
        """
        if self.loss_scale is not None and not self.loss_scale.unscale(self.weights.parameters):
            return
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.parameters, self.clip_norm)
        if self.gradient_noise is not None:
            self.gradient_noise.add(self.weights, self.step)
        self.optimizer.step()

    def describe(self) -> str:
        """One line for the log: what is agreed on, and how it travels."""
        raise NotImplementedError

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the model holds the consensus w_a and the mean of the learners' statistics."""
        own = self.weights.read(self.weights.empty())
        statistics = [b for b in self.model.buffers() if b.is_floating_point()]
        saved = [b.clone() for b in statistics]
        mean = Mean(self.world.comm)
        average = self.weights.read(self.weights.empty())
        mean(average)
        self.weights.write(average)
        for buffer in statistics:
            mean(buffer)
        try:
            yield
        finally:
            self.weights.write(own)
            for buffer, value in zip(statistics, saved, strict=True):
                buffer.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """This learner's whole state but the random generators (the loop keeps those)."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss_scale": self.loss_scale.state_dict() if self.loss_scale else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` of the same strategy and layout returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        if self.loss_scale is not None:
            self.loss_scale.load_state_dict(state["loss_scale"])


def same_start(model: nn.Module, world: World) -> None:
    """Every learner starts from rank 0's weights and statistics, bit for bit."""
    for tensor in (*model.parameters(), *model.buffers()):
        host = tensor.detach().cpu()
        world.comm.Bcast(host.numpy(), root=0)
        tensor.data.copy_(host)
