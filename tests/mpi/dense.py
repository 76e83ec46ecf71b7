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
CUTS = np.cumsum([HIDDEN * FEATURES, HIDDEN, CLASSES * HIDDEN])  # between the four tensors
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
    w1, b1, w2, b2 = np.split(w, CUTS)
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
    sign: bool = False  # signSGD steps along sign(u_j)
    buffer: Array | float = field(default=0.0)

    def direction(self, w: Array, g: Array) -> Array:
        g = g + self.weight_decay * w
        self.buffer = self.momentum * self.buffer + g
        u = g + self.momentum * self.buffer if self.nesterov else np.asarray(self.buffer)
        return np.sign(u) if self.sign else u


def scaled_signs(v: Array) -> Array:
    """Per tensor: mean |v| * sign(v), with sign(0) = 1."""
    pieces = np.split(v, CUTS)
    return np.concatenate([np.abs(p).mean() * np.where(p >= 0, 1.0, -1.0) for p in pieces])


def eight_bits(v: Array) -> Array:
    """Per tensor: the nearest of 255 evenly spaced values from -max |v| to max |v|."""
    pieces = [(np.abs(p).max() / 127, p) for p in np.split(v, CUTS)]
    return np.concatenate([scale * np.rint(p / scale) for scale, p in pieces])


def rounded(v: Array, dtype: str | None) -> Array:
    """To a 16-bit type and back."""
    return v if dtype is None else torch.from_numpy(v).to(getattr(torch, dtype)).double().numpy()


COMPRESSED: dict[str, Callable[[Array], Array]] = {"sign": scaled_signs, "uniform8": eight_bits}


@dataclass
class Local:
    """Local SGD's rule in words of its own: when who averages, and the anchor's momentum."""

    steps: Callable[[int], int]  # H by step
    after: int = 0  # steps of mini-batch SGD first
    block_steps: int = 1
    block_size: int = 1
    momentum: float = 0.0
    compression: str = "none"
    error_feedback: bool = True
    exchange_dtype: str | None = None
    errors: Array | float = 0.0  # (n, d): row j is e_j
    last: int = 0  # step after which all or blocks last averaged
    rounds: int = 0
    anchor: Array | None = None
    velocity: Array | float = 0.0


@dataclass
class Gossip:
    """DPSGD's rule in words of its own."""

    matrix: Callable[[int], Array]  # A by round
    steps: int = 1  # between two mixtures
    delayed: bool = False
    group: int = 1  # learners that are one super-learner
    exchange_dtype: str | None = None
    waiting: Array | float = 0.0  # sum_k A_jk [w_k - w_j] of the last round


@dataclass
class Simulation:
    """W (n, d): row j holds learner j's weights."""

    weights: Array
    optimizers: list[Optimizer]
    gossip: Gossip | None = None
    local: Local | None = None

    def ssgd(self, step: int, rate: float, gradients: Array) -> None:
        mean = gradients.mean(0)
        for j, optimizer in enumerate(self.optimizers):
            self.weights[j] = self.weights[j] - rate * optimizer.direction(self.weights[j], mean)

    def directions(self, gradients: Array) -> Array:
        """(n, d) row j: u_j, at learner j's own weights."""
        return np.array(
            [
                o.direction(w, g)
                for o, w, g in zip(self.optimizers, self.weights, gradients, strict=True)
            ]
        )

    def dpsgd(self, step: int, rate: float, gradients: Array) -> None:
        rule, n = self.gossip, len(self.weights)
        assert rule is not None
        everyone = np.full((rule.group, rule.group), 1 / rule.group)
        nodes = np.eye(n // rule.group)
        gradients = np.kron(nodes, everyone) @ gradients
        stepped = self.weights - rate * self.directions(gradients)
        if (step + 1) % rule.steps == 0:
            a = rule.matrix(step // rule.steps)
            if rule.delayed:
                a = (nodes + a) / 2
            told = rounded(self.weights, rule.exchange_dtype)
            change = np.kron(a, everyone) @ told - told
            stepped = stepped + (rule.waiting if rule.delayed else change)
            rule.waiting = change
        self.weights = stepped

    def majority_vote(self, step: int, rate: float, gradients: Array) -> None:
        votes = np.where(self.directions(gradients) >= 0, 1, -1).sum(0)
        self.weights = self.weights - rate * np.where(votes >= 0, 1, -1)

    def local_sgd(self, step: int, rate: float, gradients: Array) -> None:
        rule = self.local
        assert rule is not None
        exact = rule.compression == "none"
        if exact and step < rule.after:
            self.ssgd(step, rate, gradients)
            return
        if step == (rule.after if exact else 0):
            rule.last = step
            rule.anchor = self.weights.mean(0)
        self.weights = self.weights - rate * self.directions(gradients)
        if step >= rule.after and step + 1 - rule.last < rule.steps(step - rule.after):
            return
        rule.last = step + 1
        rule.rounds = rule.rounds + 1 if step >= rule.after else 0
        if rule.rounds % rule.block_steps:
            for begin in range(0, len(self.weights), rule.block_size):
                block = slice(begin, begin + rule.block_size)
                self.weights[block] = self.weights[block].mean(0)
            return
        assert rule.anchor is not None
        told = rule.anchor - self.weights
        if not exact:
            told = told + rule.errors
            decoded = np.array([COMPRESSED[rule.compression](v) for v in told])
            rule.errors = told - decoded if rule.error_feedback else 0.0
            told = decoded
        mean = rounded(rounded(told, rule.exchange_dtype).mean(0), rule.exchange_dtype)
        rule.velocity = rule.momentum * rule.velocity + mean
        rule.anchor = rule.anchor - rule.velocity
        self.weights[:] = rule.anchor
