"""The picture of a search: every run's loss or error against the value that was tried."""

from __future__ import annotations

from itertools import groupby
from math import isinf, nan
from pathlib import Path
from typing import Any

from hpcddl.common.axes import ticks_at
from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.common.study import StudyFolder
from hpcddl.tune.finished_search import FinishedSearch
from hpcddl.tune.searches import Point, labels_of
from hpcddl.tune.trials import Trial

_LABELS = {
    "heldout_loss": "held-out loss of the consensus (nats)",
    "heldout_error": "held-out error of the consensus (%)",
}
_MOST_LEVEL = 8  # values whose labels have room side by side
_SCALES = {"heldout_loss": 1.0, "heldout_error": 100.0}


def draw(study: FinishedSearch, folder: StudyFolder) -> None:
    """Draws medians as lines, one for each value of the second key, and runs as dots."""
    key, *others = study.trials[0].point
    trials = sorted(study.trials, key=lambda trial: [*trial.point.values()][::-1])

    def fixed(trial: Trial) -> Point:
        return {other: trial.point[other] for other in others}

    with folder.picture("tune", suffixes=["png"], figsize=(7, 4.5)) as (_, axis):
        for i, (values, line) in enumerate(groupby(trials, fixed)):
            label = ", ".join(f"{label} {value}" for label, value in labels_of(values).items())
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
            _line(axis, study, key, list(line), label or "median of the seeds", style)
        if study.best:
            best = study.best.point[key], study.best.cost(study.by) * _SCALES[study.by]
            axis.plot(*best, "o", markersize=14, fillstyle="none", color="black", label="best")
        lost = {str(run) for trial in trials for run in trial.runs if run.lost}
        if lost:
            axis.plot([], [], "x", color="black", label=", ".join(sorted(lost)))
        axis.margins(y=0.1)
        tried = sorted({trial.point[key] for trial in trials})
        ticks_at(axis, tried)
        if len(tried) > _MOST_LEVEL:
            axis.tick_params(axis="x", rotation=90, labelsize=8)
        axis.set(xlabel=key, ylabel=_LABELS[study.by])
        axis.legend()
        title = f"{Path(study.trainer.recipe).name}\n{study.search.description}"
        axis.set_title(title, fontsize=10)


def _line(
    axis: Any,
    study: FinishedSearch,
    key: str,
    trials: list[Trial],
    label: str,
    style: dict[str, str],
) -> None:
    """Finite medians and runs where they are; runs that are lost as crosses at the top."""
    by, scale = study.by, _SCALES[study.by]
    medians = [(t.point[key], scale * t.cost(by)) for t in trials if not isinf(t.cost(by))]
    axis.plot(*zip(*medians or [(nan, nan)], strict=True), label=label, **style)
    for trial in trials:
        x = trial.point[key]
        for run in trial.runs:
            if run.lost:
                axis.plot(x, 0.97, "x", color=style["color"], transform=axis.get_xaxis_transform())
            else:
                axis.plot(x, scale * getattr(run, by), ".", color=style["color"])
