"""The picture of paper B's figure 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcddl.common.axes import medians_with_ranges, ticks_at
from hpcddl.common.colours import COLOURS
from hpcddl.common.study import StudyFolder
from hpcddl.reproduce.b_fig6_report import TimeStudy, statements
from hpcddl.reproduce.target import Combination

_MARKERS = "osD^vPX"


def draw(study: TimeStudy, folder: StudyFolder) -> None:
    """Draws time by H and local batch (a), speed-up by K and H (b)."""
    terms, panel_a, panel_b = study.terms, study.panel_a(), study.panel_b()
    with folder.picture("b-fig6", 1, 2, figsize=(11, 5.6)) as (figure, (left, right)):
        for i, batch in enumerate(sorted({c.batch for c in panel_a})):
            line = sorted((c for c in panel_a if c.batch == batch), key=lambda c: c.steps)
            _line(left, i, f"local batch {batch}", [c.steps for c in line], line, study.costs)
        for i, steps in enumerate(sorted({c.steps for c in panel_b})):
            line = sorted((c for c in panel_b if c.steps == steps), key=lambda c: c.learners)
            _line(right, i, f"H = {steps}", [c.learners for c in line], line, study.speedups)
        numbers = sorted({1, *(c.learners for c in panel_b)})
        right.plot(numbers, numbers, color="0.5", linestyle=":", label="linear")
        _finish(left, sorted({c.steps for c in panel_a}))
        _finish(right, numbers)
        left.set(
            title=f"(a) K = {study.at_learners} learners",
            xlabel="local steps H",
            ylabel=f"time to f - f* ≤ {terms.target:g} (gradient computations)",
        )
        right.set(
            title=f"(b) local batch {study.at_batch}",
            xlabel="learners K",
            ylabel=f"speed-up over one learner, local batch {study.at_batch}",
        )
        figure.suptitle(
            f"Logistic regression, N = {terms.samples:,}; a round of communication costs "
            f"{terms.round_cost:g}; medians and range of {terms.seeds} data orders"
        )
        said = [statement.replace("\nhere: ", ". Here:") for statement in statements(study)]
        figure.supxlabel("\n".join(said), fontsize=9, ha="left", x=0.01)


def _line(
    axis: Any,
    number: int,
    label: str,
    places: Sequence[int],
    combinations: Sequence[Combination],
    values: Callable[[Combination], tuple[float, float, float]],
) -> None:
    """Draws medians with their ranges, where the target was reached at all."""
    points = [(x, *values(c)) for x, c in zip(places, combinations, strict=True)]
    medians_with_ranges(
        axis,
        [point for point in points if point[1]],  # a speed-up of 0: not reached
        color=COLOURS[number % len(COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        label=label,
    )


def _finish(axis: Any, places: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ticks_at(axis, places, base=2)
    axis.legend()
