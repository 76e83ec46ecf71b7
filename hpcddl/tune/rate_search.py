"""The best learning rate on a grid that grows while the best lies near its edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from statistics import median

from hpcddl.tune.growing_grid import grow

_START = (6, 7, 8, 5, 4)  # powers of the ratio: a good rate early keeps the others' limits low
_MARGIN = 2  # rates tried beyond the best, on either side
_GIVE_UP = 12  # rates tried beyond the first ones, on either side, while none reaches the target


@dataclass(frozen=True)
class RateTrial:
    """One rate: the iterations of each seed to the target, inf where `limit` did not do."""

    rate: float
    iterations: tuple[float, ...]
    limit: float

    @property
    def median(self) -> float:
        """Takes the median iterations over the seeds."""
        return median(self.iterations)


def search(
    iterations_of: Callable[[float, int, float], float],
    seeds: int,
    limit: float,
    highest: float = inf,
) -> list[RateTrial]:
    """Every rate tried, the best first; two rates on either side of the best are no better.

    The grid begins with 4 .. 16 by factors of sqrt(2) and grows on the side where two rates beyond
    the best are missing, never above the `highest` rate; while no rate reaches the target on both,
    by up to 12 rates each. A median of more than twice the best so far cannot win any more: that is
    the next rate's limit.

    Args:
        iterations_of: (rate, seed, limit) -> iterations, inf above the limit.
    """
    tried: list[RateTrial] = []

    def cost_of(power: int) -> float:
        rate = _rate(power)
        allowed = min([limit, *(2 * trial.median for trial in tried)])
        iterations = tuple(iterations_of(rate, seed, allowed) for seed in range(seeds))
        tried.append(RateTrial(rate, iterations, allowed))
        return tried[-1].median

    grow(
        cost_of,
        _START,
        allowed=lambda power: _rate(power) <= highest,
        margin=_MARGIN,
        give_up=(min(_START) - _GIVE_UP, max(_START) + _GIVE_UP),
    )
    return sorted(tried, key=lambda trial: (trial.median, trial.rate))


def _rate(power: int) -> float:
    """2^(power / 2), whole where it is."""
    return 2.0 ** (power / 2)
