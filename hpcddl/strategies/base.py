"""What every strategy (how learners agree) offers the loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcddl.communication.average import Mean
from hpcddl.flat import FlatWeights
from hpcddl.world import World


@dataclass
class Traffic:
    """What agreeing has cost this learner since its process started."""

    bytes_sent: int = 0
    seconds: float = 0.0  # in which the learner waited for, or worked on, communication


class Strategy:
    """One learner's side of an algorithm; the loop calls only these.

    A subclass sets `optimizer`, the one that is scheduled and checkpointed. Between two updates
    no message is in flight, so a checkpoint is safe there.
    """

    optimizer: torch.optim.Optimizer
    clip_norm: float | None = None  # of the gradient that `clip` lets through; None: any

    def __init__(self, model: nn.Module, world: World) -> None:
        self.model = model
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

    def clip(self) -> None:
        """g <- g * min(1, clip_norm / |g|), all tensors as one vector (Pascanu et al. 2013).

        A subclass calls it right before the optimizer steps: what is local then is clipped locally.
        """
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.parameters, self.clip_norm)

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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` of the same strategy and layout returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def same_start(model: nn.Module, world: World) -> None:
    """Every learner starts from rank 0's weights and statistics, bit for bit."""
    for tensor in (*model.parameters(), *model.buffers()):
        host = tensor.detach().cpu()
        world.comm.Bcast(host.numpy(), root=0)
        tensor.data.copy_(host)


def draw(shape: int, like: Tensor, std: float, *key: int) -> Tensor:
    """Gaussian noise (shape,) that depends on `key` alone, so that a resumed run repeats it."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator).mul_(std)
