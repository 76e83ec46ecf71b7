"""What pictures of several studies draw alike: algorithms, medians with ranges, logarithmic axes.

An `axis` is one of matplotlib's axes.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from hpcddl.common.colours import COLOURS

# The paper's red, blue and green, as the colour-blind tell them apart.
LINES = {
    "SSGD": {"color": COLOURS[1], "linestyle": "-"},
    "SSGD*": {"color": COLOURS[0], "linestyle": "-."},
    "DPSGD": {"color": COLOURS[2], "linestyle": "--"},
}
"""Algorithm -> the look of its line, as matplotlib's keywords."""
MARKERS = {"SSGD": "o", "SSGD*": "^", "DPSGD": "s"}


def medians_with_ranges(
    axis: Any, points: Iterable[tuple[float, float, float, float]], **style: Any
) -> None:
    """Draws medians as a line, with bars from the least to the greatest value.

    Medians that are not finite are left out; a greatest value that is not has no bar.

    Args:
        points: place, median, least and greatest.
        style: matplotlib's keywords.
    """
    known = [point for point in points if isfinite(point[1])]
    if not known:
        return
    places, medians, _, _ = zip(*known, strict=True)
    below = [middle - least for _, middle, least, _ in known]
    above = [high - middle if isfinite(high) else 0 for _, middle, _, high in known]
    axis.errorbar(places, medians, (below, above), capsize=3, **style)


def ticks_at(axis: Any, values: Sequence[float], base: float = 10) -> None:
    """Makes the axis' x logarithmic, with ticks at `values` and nowhere else."""
    axis.set_xscale("log", base=base)
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    axis.set_xticks(values, texts)
    axis.minorticks_off()
