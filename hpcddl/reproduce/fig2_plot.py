"""The picture of a panel of paper A's figure 2: a thin line per seed, a thick one of medians."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from itertools import groupby, zip_longest
from math import isfinite, nan
from statistics import fmean, median
from typing import Any

from hpcddl.common.axes import LINES
from hpcddl.common.study import StudyFolder
from hpcddl.reproduce.fig2_report import PanelStudy, described
from hpcddl.reproduce.fig2_run import PanelRun
from hpcddl.training.diagnostics import Measurement

Points = list[tuple[float, float]]  # updates, value
WINDOWS = 20
"""Parts of a run over which alpha_e and Delta are meaned: those of single updates scatter."""


def draw(study: PanelStudy, folder: StudyFolder) -> None:
    """Draws training loss, test error, alpha_e and Delta over the updates."""
    rate = study.setting.rate
    width = study.updates / WINDOWS

    def smooth(value: Callable[[Measurement], float]) -> Callable[[PanelRun], Points]:
        return lambda run: windowed([(m.step, value(m)) for m in run.measurements], width)

    with folder.picture(study.panel.name, 2, 2, figsize=(11, 7), sharex=True) as (figure, axes):
        (loss, error), (effective, noise) = axes
        _lines(study, loss, lambda run: [(m.step, m.loss) for m in run.measurements])
        _lines(study, error, lambda run: [(e.step, 100 * e.error) for e in run.test_errors])
        _lines(study, effective, smooth(lambda m: m.effective_rate / rate))
        _lines(study, noise, smooth(lambda m: m.noise))
        loss.set(yscale="log", ylabel="training loss of the consensus (nats)")
        error.set(yscale="log", ylabel="test error of the consensus (%)")
        means = "means over 1/20 of the run"
        effective.set(ylim=(-0.5, 2), ylabel=f"effective learning rate α$_e$ / α,\n{means}")
        noise.set(yscale="log", ylabel=f"noise strength Δ,\n{means}")
        for axis in (effective, noise):
            axis.set_xlabel("updates t")
        loss.legend(loc="lower left")
        figure.suptitle(textwrap.fill(described(study), 130), fontsize=9)


def _lines(study: PanelStudy, axis: Any, points_of: Callable[[PanelRun], Points]) -> None:
    for algorithm, runs in study.runs.items():
        lines = [points_of(run) for run in runs]
        colour = LINES[algorithm]["color"]
        for line in lines:
            axis.plot(*zip(*line, strict=True), color=colour, linewidth=0.6, alpha=0.5)
        steps, values = _median(lines)
        axis.plot(steps, values, color=colour, linewidth=2.2, label=algorithm)


def windowed(points: Points, width: float) -> Points:
    """Means of points of one window of `width` updates each, at its middle."""
    parts = groupby(points, key=lambda point: int(point[0] // width))
    return [((part + 0.5) * width, fmean(value for _, value in of)) for part, of in parts]


def _median(lines: list[Points]) -> tuple[list[float], list[float]]:
    """Takes the median of the finite values at each step; a run that has diverged is shorter."""
    steps = [step for step, _ in max(lines, key=len)]
    values = zip_longest(*([value for _, value in line] for line in lines), fillvalue=nan)
    finite = ([value for value in at if isfinite(value)] for at in values)
    return steps, [median(at) if at else nan for at in finite]
