"""The best learning rate on a grid that grows while the best lies near its edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isinf
from statistics import median

_START = (6, 7, 8, 5, 4)  # powers of the ratio: a good rate early keeps the others' limits low
_MARGIN = 2  # rates tried beyond the best, on either side
_GIVE_UP = 12  # rates tried beyond the first ones, on either side, while none reaches the target


@dataclass(frozen=True)
class Trial:
    """One rate: the iterations of each seed to the target, inf where `limit` did not do."""

    rate: float
    iterations: tuple[float, ...]
    limit: float

    @property
    def median(self) -> float:
        """Of the seeds."""
        return median(self.iterations)


def search(
    iterations_of: Callable[[float, int, float], float],
    seeds: int,
    limit: float,
    highest: float = inf,
) -> list[Trial]:
    """Every rate tried, the best first; two rates on either side of the best are no better.

    The grid begins with 4 .. 16 by factors of sqrt(2) and grows on the side where two rates beyond
    the best are missing, never above the `highest` rate; while no rate reaches the target on both,
    by up to 12 rates each. A median of more than twice the best so far cannot win any more: that is
    the next rate's limit.

    Args:
        iterations_of: (rate, seed, limit) -> iterations, inf above the limit.
    """
    tried: dict[int, Trial] = {}

    def attempt(power: int) -> None:
        best = min((trial.median for trial in tried.values()), default=inf)
        rate, allowed = _rate(power), min(limit, 2 * best)
        iterations = tuple(iterations_of(rate, seed, allowed) for seed in range(seeds))
        tried[power] = Trial(rate, iterations, allowed)

    for power in _START:
        if _rate(power) <= highest:
            attempt(power)
    while True:
        low, best, high = min(tried), min(tried, key=lambda p: tried[p].median), max(tried)
        lost = isinf(tried[best].median)
        below = low > min(_START) - _GIVE_UP if lost else best - low < _MARGIN
        above = high < max(_START) + _GIVE_UP if lost else high - best < _MARGIN
        above = above and _rate(high + 1) <= highest
        if not below and not above:
            return sorted(tried.values(), key=lambda trial: (trial.median, trial.rate))
        if below:
            attempt(low - 1)
        if above:
            attempt(high + 1)


def _rate(power: int) -> float:
    """2^(power / 2), whole where it is."""
    return 2.0 ** (power / 2)
