"""The picture of a search: every run's loss or error against the value that was tried."""

from __future__ import annotations

from itertools import groupby
from math import isinf, nan
from pathlib import Path
from typing import Any

from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.common.files import whole_file
from hpcddl.tune.searches import Point, labels_of
from hpcddl.tune.study import Study
from hpcddl.tune.trials import Trial

_LABELS = {
    "heldout_loss": "held-out loss of the consensus (nats)",
    "heldout_error": "held-out error of the consensus (%)",
}
_MOST_LEVEL = 8  # values whose labels have room side by side
_SCALES = {"heldout_loss": 1.0, "heldout_error": 100.0}


def draw(study: Study) -> None:
    """tune.png: medians as lines, one for each value of the second key; runs as dots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    key, *others = study.trials[0].point
    trials = sorted(study.trials, key=lambda trial: [*trial.point.values()][::-1])

    def fixed(trial: Trial) -> Point:
        return {other: trial.point[other] for other in others}

    for i, (values, line) in enumerate(groupby(trials, fixed)):
        label = ", ".join(f"{label} {value}" for label, value in labels_of(values).items())
        style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        _line(axis, study, key, list(line), label or "median of the seeds", style)
    if study.best:
        best = study.best.point[key], study.best.cost(study.by) * _SCALES[study.by]
        axis.plot(*best, "o", markersize=14, fillstyle="none", color="black", label="best")
    if any(run.diverged for trial in trials for run in trial.runs):
        axis.plot([], [], "x", color="black", label="diverged")
    axis.margins(y=0.1)
    axis.set_xscale("log")
    tried = sorted({trial.point[key] for trial in trials})
    axis.set_xticks(tried, [f"{value:g}" for value in tried])
    if len(tried) > _MOST_LEVEL:
        axis.tick_params(axis="x", rotation=90, labelsize=8)
    axis.minorticks_off()
    axis.set_xlabel(key)
    axis.set_ylabel(_LABELS[study.by])
    axis.grid(alpha=0.3)
    axis.legend()
    axis.set_title(f"{Path(study.trainer.recipe).name}\n{study.search.description}", fontsize=10)
    with whole_file(study.trainer.out / "tune.png") as file:
        figure.savefig(file, format="png", dpi=150)
    plt.close(figure)


def _line(
    axis: Any, study: Study, key: str, trials: list[Trial], label: str, style: dict[str, str]
) -> None:
    """Finite medians and runs where they are; runs that diverged as crosses at the top."""
    by, scale = study.by, _SCALES[study.by]
    medians = [(t.point[key], scale * t.cost(by)) for t in trials if not isinf(t.cost(by))]
    axis.plot(*zip(*medians or [(nan, nan)], strict=True), label=label, **style)
    for trial in trials:
        x = trial.point[key]
        for run in trial.runs:
            if run.diverged:
                axis.plot(x, 0.97, "x", color=style["color"], transform=axis.get_xaxis_transform())
            else:
                axis.plot(x, scale * getattr(run, by), ".", color=style["color"])
