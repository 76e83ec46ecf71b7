"""The picture of paper B's figure 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isinf
from pathlib import Path
from typing import Any

from hpcddl.common.colours import COLOURS
from hpcddl.reproduce.b_fig6_report import Study, statements
from hpcddl.reproduce.target import Setting

_MARKERS = "osD^vPX"


def draw(study: Study, folder: Path) -> None:
    """b-fig6.png and .pdf: time by H and local batch (a), speed-up by K and H (b)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.6), layout="constrained")
    one = Setting(1, study.at_batch, 1)

    def time(setting: Setting) -> tuple[float, float, float]:
        return study.costs(setting)

    def speedup(setting: Setting) -> tuple[float, float, float]:
        low, middle, high = (study.costs(one)[1] / cost for cost in study.costs(setting))
        return high, middle, low

    panel_a, panel_b = study.panel_a(), study.panel_b()
    for i, batch in enumerate(sorted({s.batch for s in panel_a})):
        line = sorted((s for s in panel_a if s.batch == batch), key=lambda s: s.steps)
        _line(left, i, f"local batch {batch}", line, [s.steps for s in line], time)
    for i, steps in enumerate(sorted({s.steps for s in panel_b})):
        line = sorted((s for s in panel_b if s.steps == steps), key=lambda s: s.learners)
        _line(right, i, f"H = {steps}", line, [s.learners for s in line], speedup)
    numbers = sorted({1, *(s.learners for s in panel_b)})
    right.plot(numbers, numbers, color="0.5", linestyle=":", label="linear")
    _axis(left, sorted({s.steps for s in panel_a}), "local steps H")
    _axis(right, numbers, "learners K")
    left.set_ylabel(f"time to f - f* ≤ {study.target:g} (gradient computations)")
    right.set_ylabel(f"speed-up over one learner, local batch {study.at_batch}")
    left.set_title(f"(a) K = {study.at_learners} learners")
    right.set_title(f"(b) local batch {study.at_batch}")
    figure.suptitle(
        f"Logistic regression, N = {study.samples:,}; a round of communication costs "
        f"{study.round_cost:g}; medians and range of {study.seeds} data orders"
    )
    said = [statement.replace("\nhere: ", ". Here:") for statement in statements(study)]
    figure.supxlabel("\n".join(said), fontsize=9, ha="left", x=0.01)
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"b-fig6.{suffix}", dpi=150)
    plt.close(figure)


def _line(
    axis: Any,
    number: int,
    label: str,
    settings: Sequence[Setting],
    at: Sequence[int],
    values: Callable[[Setting], tuple[float, float, float]],
) -> None:
    """Medians with bars from least to greatest, where the target was reached at all."""
    points = [(x, *values(s)) for x, s in zip(at, settings, strict=True)]
    points = [point for point in points if point[2] and not isinf(point[2])]
    if not points:
        return
    x, low, middle, high = zip(*points, strict=True)
    below = [m - lo for m, lo in zip(middle, low, strict=True)]
    above = [0 if isinf(h) else h - m for m, h in zip(middle, high, strict=True)]
    axis.errorbar(
        x,
        middle,
        (below, above),
        color=COLOURS[number % len(COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        capsize=3,
        label=label,
    )


def _axis(axis: Any, at: Sequence[int], label: str) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_xticks(at, [str(x) for x in at])
    axis.minorticks_off()
    axis.set_xlabel(label)
    axis.grid(alpha=0.3)
    axis.legend()
