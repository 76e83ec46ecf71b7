"""SSGD*: Gaussian noise of constant variance in the weights, around any strategy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from hpcddl.optimizers.noise import draw
from hpcddl.strategies.base import Strategy


class WeightNoise(Strategy):
    """Wraps a strategy and disturbs its weights each iteration (paper A sec. 2.1, 4.3).

    `per_learner`: learner j takes its gradient at w + xi_j, xi_j ~ N(0, std^2 I) fresh and its own
    each iteration; the weights themselves stay clean. `shared`: after each update w <- w + xi, the
    same xi on every learner, staying. The noise is drawn from (seed, step, learner).
    """

    def __init__(
        self, inner: Strategy, std: float, reading: Literal["per_learner", "shared"], seed: int
    ) -> None:
        self.inner = inner
        self.model, self.world, self.weights = inner.model, inner.world, inner.weights
        self.local, self.optimizer = inner.local, inner.optimizer
        self.loss_scale, self.traffic = inner.loss_scale, inner.traffic
        self.may_skip_steps, self.spectral_gap = inner.may_skip_steps, inner.spectral_gap
        self.needs_epoch = inner.needs_epoch
        self.std, self.reading, self.seed = std, reading, seed
        self._clean = self.weights.empty() if reading == "per_learner" else None

    def before_forward(self) -> None:
        self.inner.before_forward()  # neighbours get the clean weights
        if self._clean is not None:
            self.weights.read(self._clean)
            self._add(self.inner.world.rank + 1)

    def update(self) -> None:
        if self._clean is not None:
            # Copied back, not subtracted: rounding would let the noise stay.
            self.weights.write(self._clean)
        self.inner.update()
        if self._clean is None:
            self._add(0)

    def __getattr__(self, name: str) -> Any:
        """Hands on what only the wrapped strategy has."""
        if name == "inner":  # before `__init__` has set it, as copies are made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def _add(self, stream: int) -> None:
        noise = draw(
            self.weights.size, self.weights.parameters[0], self.std, self.seed, self.step, stream
        )
        with torch.no_grad():
            torch._foreach_add_(self.weights.parameters, self.weights.views(noise))

    @property
    def step(self) -> int:  # type: ignore[override]
        """Updates so far, of the wrapped strategy."""
        return self.inner.step

    @property
    def epoch(self) -> float:
        """Progress of the run, which the wrapped strategy is told."""
        return self.inner.epoch

    @epoch.setter
    def epoch(self, value: float) -> None:
        self.inner.epoch = value

    def take_step(self) -> None:
        self.inner.take_step()

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        with self.inner.accumulating():
            yield

    @contextmanager
    def consensus(self) -> Iterator[None]:
        with self.inner.consensus():
            yield

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)

    def describe(self) -> str:
        return f"{self.inner.describe()}; weight noise {self.reading}, std {self.std:g}"
