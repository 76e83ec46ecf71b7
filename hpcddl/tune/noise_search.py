"""SSGD*'s noise: a log grid, then finer steps around the best (paper A sec. 4.3)."""

from collections.abc import Callable

_EIGHTHS = range(8, -41, -4)  # of a decade: 10 down to 1e-5, two a decade
_FINER = (2, 1)
TRIALS = len(_EIGHTHS) + 2 * len(_FINER)


def search_std(loss_of: Callable[[float], float]) -> dict[float, float]:
    """Every standard deviation tried -> its loss, the best first; the smaller one of two as good.

    The paper goes from 10 to 1e-5 "via binary search (i.e. roughly 20 configurations)". As noise
    helps in a window, if anywhere, no bisection finds it: here 13 values of a grid are tried, then
    both neighbours of the best at a quarter and at an eighth of a decade, 17 in all.
    """
    found = {eighths: loss_of(_std(eighths)) for eighths in _EIGHTHS}

    def best() -> int:
        return min(found, key=lambda eighths: (found[eighths], eighths))

    for step in _FINER:
        middle = best()
        for eighths in (middle - step, middle + step):
            found[eighths] = loss_of(_std(eighths))
    order = sorted(found, key=lambda eighths: (found[eighths], eighths))
    return {_std(eighths): found[eighths] for eighths in order}


def _std(eighths: int) -> float:
    """10^(eighths / 8) to four digits."""
    return float(f"{10 ** (eighths / 8):.4g}")
