"""The noise of each N-th update of any strategy, measured while it trains (paper A sec. 2)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mpi4py import MPI
from torch import Tensor

from hpcddl.analysis.noise import effective_learning_rate, noise_strength
from hpcddl.strategies.base import Strategy


class Measurement(NamedTuple):
    """Of one update, before which `step` others were made."""

    step: int
    loss: float  # overall, at w_a, in nats
    effective_rate: float  # alpha_e
    noise: float  # Delta


class Observed(Strategy):
    """Wraps a strategy and measures every `every`-th update; the weights are the same bits without.

    g is taken at the consensus w_a before the update; g_a is the mean over the learners of what
    p.grad holds after it: g_j at whatever weights the strategy took it (SSGD: their mean already).
    """

    def __init__(
        self, inner: Strategy, overall_gradient: Callable[[], tuple[float, Tensor]], every: int
    ) -> None:
        """`overall_gradient` gives L and g (d,), float64, at the weights that the model holds."""
        self.inner = inner
        self.model, self.world, self.weights = inner.model, inner.world, inner.weights
        self.optimizer, self.traffic = inner.optimizer, inner.traffic
        self.epoch = inner.epoch
        self.every = every
        self.measurements: list[Measurement] = []
        self._overall_gradient = overall_gradient
        self._overall: tuple[float, Tensor] | None = None

    def before_forward(self) -> None:
        if self.step % self.every == 0:
            with self.inner.consensus():
                self._overall = self._overall_gradient()
        self.inner.epoch = self.epoch
        self.inner.before_forward()

    def update(self) -> None:
        step, rate = self.step, self.optimizer.param_groups[0]["lr"]
        self.inner.update()
        if self._overall is not None:
            loss, overall = self._overall
            mean = self._mean_gradient()
            alpha_e = effective_learning_rate(rate, mean, overall)
            noise = noise_strength(rate, mean, overall)
            self.measurements.append(Measurement(step, loss, alpha_e, noise))
            self._overall = None

    def _mean_gradient(self) -> Tensor:
        mean = torch.zeros(self.weights.size, dtype=torch.float64)
        for view, p in zip(self.weights.views(mean), self.weights.parameters, strict=True):
            if p.grad is not None:
                view.copy_(p.grad)
        self.world.comm.Allreduce(MPI.IN_PLACE, mean.numpy(), MPI.SUM)
        return mean / self.world.size

    @property
    def step(self) -> int:  # type: ignore[override]
        """Updates so far, of the wrapped strategy."""
        return self.inner.step

    @contextmanager
    def consensus(self) -> Iterator[None]:
        with self.inner.consensus():
            yield

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def describe(self) -> str:
        return self.inner.describe()
