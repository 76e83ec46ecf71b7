"""How many iterations local SGD takes to come near the least value of the objective."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from hpcddl.reproduce.learners import local_sgd
from hpcddl.reproduce.logistic import Array, Logistic

_TANGENTS = 64


@dataclass(frozen=True)
class Combination:
    """K learners with local batch B_loc that average every H iterations."""

    learners: int
    batch: int
    steps: int

    def rounds(self, iterations: float) -> float:
        """Averages over all learners; one alone has nobody to talk to."""
        return iterations / self.steps if self.learners > 1 else 0.0

    def cost(self, iterations: float, round_cost: float) -> float:
        """Time in gradient computations: iterations * B_loc + rounds * round_cost.

        The learners compute at the same time (paper B app. B.2).
        """
        return iterations * self.batch + self.rounds(iterations) * round_cost


def iterations_to(
    problem: Logistic, level: float, chosen: Combination, *, rate: float, seed: int, limit: float
) -> float:
    """Iterations up to the first average w_a with f(w_a) <= level; inf: not within `limit`.

    f counts at every average and nowhere else: between them no learner holds w_a. The count is
    exact, yet f is rarely computed: where a tangent of this convex f lies above the level, f does.
    """
    tangents = Tangents(problem.features.shape[1])
    learners, batch, steps = chosen.learners, chosen.batch, chosen.steps
    run = local_sgd(problem, learners=learners, batch=batch, steps=steps, rate=rate, seed=seed)
    with np.errstate(over="ignore", invalid="ignore"):
        for iterations, weights in enumerate(run, 1):
            if iterations > limit:
                break
            w = weights[0]
            if iterations % steps or tangents.at(w) > level:
                continue
            value, gradient = problem.value_and_gradient(w)
            if value <= level:
                return iterations
            if not np.isfinite(value):
                break
            tangents.add(w, value, gradient)
    return inf


class Tangents:
    """A lower bound of a convex f: the highest of its last tangents f(v) + grad f(v).(w - v)."""

    def __init__(self, features: int) -> None:
        self._slopes = np.zeros((_TANGENTS, features))
        self._offsets = np.full(_TANGENTS, -inf)
        self._added = 0

    def add(self, v: Array, value: float, gradient: Array) -> None:
        """Takes up the tangent at v (d,), in place of the oldest."""
        place = self._added % _TANGENTS
        self._slopes[place] = gradient
        self._offsets[place] = value - gradient @ v
        self._added += 1

    def at(self, w: Array) -> float:
        """The bound of f(w); -inf without a tangent."""
        return float((self._slopes @ w + self._offsets).max())
