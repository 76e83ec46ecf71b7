"""What every strategy (how learners agree) offers the loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.average import average_aside
from hpcddl.communication.messages import broadcast
from hpcddl.optimizers.gradient_step import GradientStep

if TYPE_CHECKING:
    from hpcddl.communication.gradients import GradientMean


@dataclass
class Traffic:
    """What agreeing has cost this learner since its process started."""

    rounds: int = 0  # of communication: averages, exchanges, votes
    bytes_sent: int = 0
    seconds: float = 0.0  # in which the learner waited for, or worked on, communication

    def sent(self, nbytes: int) -> None:
        """Counts one round and the bytes that this learner sent."""
        self.rounds += 1
        self.bytes_sent += nbytes

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, time is communication's."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


class Strategy:
    """One learner's side of an algorithm, whole after construction; the loop calls only these.

    One update, in order, and what may happen there:

        before_forward()    starts communication that forward and backward hide
        (backward)          hooks on the parameters may start more, gradient by gradient
        update()            finishes what was started; `take_step` moves the weights by the local
                            step; then whatever the rule does to stepped weights; `step` grows by 1

    and between updates: `consensus()` around an evaluation, `state_dict()` for a checkpoint. No
    message is in flight there that `state_dict` does not wait for.

    Args:
        model: the learner's network; its parameters are changed in place.
        local: the local step, with clipping, gradient noise and loss scale.
        world: the learners that agree.
    """

    may_skip_steps = True  # of one learner alone, whose gradient has overflowed
    spectral_gap: float | None = None  # of the mixing matrix, of those who mix in every step
    needs_epoch = False  # whether the rule changes in the course of training
    _gradients: GradientMean | None = None  # of those who average gradients

    def __init__(self, model: nn.Module, local: GradientStep, world: World) -> None:
        self.model = model
        self.local = local
        self.optimizer, self.loss_scale = local.optimizer, local.loss_scale
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
        """Takes the local step along the gradient as it is."""
        self.local.take(self.weights, self.step)

    def describe(self) -> str:
        """One line for the log: what is agreed on, and how it travels."""
        raise NotImplementedError

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Inside, backward only adds to the gradients; the pass that ends a batch comes after."""
        with self._gradients.paused() if self._gradients is not None else nullcontext():
            yield

    @contextmanager
    def consensus(self) -> Iterator[None]:
        """Inside, the model holds the consensus w_a and the mean of the learners' statistics."""
        own = self.weights.read(self.weights.empty())
        statistics = [b for b in self.model.buffers() if b.is_floating_point()]
        saved = [b.clone() for b in statistics]
        average = self.weights.read(self.weights.empty())
        average_aside(self.world.comm, average)
        self.weights.write(average)
        for buffer in statistics:
            average_aside(self.world.comm, buffer)
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
        host = tensor.detach().cpu().contiguous()
        broadcast(world.comm, host.numpy())
        tensor.data.copy_(host)
