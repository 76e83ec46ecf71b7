"""A grid that grows while its best value lies too near an edge (paper B app. A.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isinf


def grow(
    cost_of: Callable[[int], float],
    first: Sequence[int],
    *,
    allowed: Callable[[int], bool] = lambda index: True,
    margin: int = 1,
    give_up: tuple[float, float] = (-inf, inf),
    trials: float = inf,
) -> dict[int, float]:
    """Every index of the grid that was tried -> its cost, in the order of the trials.

    The best has the least cost; of several, the smallest index. Indices next to the edges are added
    until `margin` of them lie beyond the best on both sides; while every cost is infinite, until
    the lowest and the highest of `give_up`. No index is tried twice.

    Args:
        allowed: where it is false the grid ends.
        trials: at most so many.
    """
    costs: dict[int, float] = {}

    def attempt(*indices: int) -> None:
        for index in indices:
            if len(costs) < trials and allowed(index):
                costs[index] = cost_of(index)

    attempt(*first)
    while True:
        before = len(costs)
        low, high = min(costs), max(costs)
        best = min(costs, key=lambda index: (costs[index], index))
        lost = isinf(costs[best])
        if low > give_up[0] if lost else best - low < margin:
            attempt(low - 1)
        if high < give_up[1] if lost else high - best < margin:
            attempt(high + 1)
        if len(costs) == before:
            return costs
