"""All learners at once in NumPy float64: the reference that every strategy is checked against.

The network is Linear - tanh - Linear with cross-entropy, its gradient written out by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

FEATURES, HIDDEN, CLASSES = 5, 4, 3
Array = NDArray[np.float64]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)
    ).double()


def samples(count: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, FEATURES)), random.integers(0, CLASSES, count)


def vector_of(model: nn.Module) -> Array:
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def gradient(w: Array, x: Array, y: NDArray[np.int64]) -> Array:
    """Gradient (d,) of the mean cross-entropy of samples x (B, F), y (B,) at weights w (d,)."""
    cuts = np.cumsum([HIDDEN * FEATURES, HIDDEN, CLASSES * HIDDEN])
    w1, b1, w2, b2 = np.split(w, cuts)
    w1, w2 = w1.reshape(HIDDEN, FEATURES), w2.reshape(CLASSES, HIDDEN)
    hidden = np.tanh(x @ w1.T + b1)
    scores = hidden @ w2.T + b2
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    back = (p @ w2) * (1 - hidden**2)
    return np.concatenate([(back.T @ x).ravel(), back.sum(0), (p.T @ hidden).ravel(), p.sum(0)])


@dataclass
class Optimizer:
    """u_j of one learner: SGD with weight decay, momentum and Nesterov (Sutskever's form)."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    buffer: Array | float = field(default=0.0)

    def direction(self, w: Array, g: Array) -> Array:
        g = g + self.weight_decay * w
        self.buffer = self.momentum * self.buffer + g
        return g + self.momentum * self.buffer if self.nesterov else np.asarray(self.buffer)


@dataclass
class Simulation:
    """W (n, d): row j holds learner j's weights."""

    weights: Array
    optimizers: list[Optimizer]
    matrix: Callable[[int], Array] | None = None  # of DPSGD

    def ssgd(self, step: int, rate: float, gradients: Array) -> None:
        mean = gradients.mean(0)
        for j, optimizer in enumerate(self.optimizers):
            self.weights[j] = self.weights[j] - rate * optimizer.direction(self.weights[j], mean)

    def dpsgd(self, step: int, rate: float, gradients: Array) -> None:
        assert self.matrix is not None
        directions = np.array(
            [
                o.direction(w, g)
                for o, w, g in zip(self.optimizers, self.weights, gradients, strict=True)
            ]
        )
        self.weights = self.matrix(step) @ self.weights - rate * directions
