"""Draws how runs spent their time: a stacked bar each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpcddl.common.colours import COLOURS
from hpcddl.common.picture_file import pyplot
from hpcddl.report.looks import label
from hpcddl.report.picture import Picture, finished
from hpcddl.run.records import Run, names

HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++", "")
SHOWN = len(COLOURS) - 1
"""Kinds with a colour of their own; the rest are one."""


def by_kind(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Seconds of rank 0 of each run, by kind: the greatest first, small ones together last."""
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run.summary["seconds"])
    kinds = [kind for kind, seconds in total.most_common(SHOWN) if seconds]
    found = {kind: [run.summary["seconds"].get(kind, 0.0) for run in runs] for kind in kinds}
    rest = [
        sum(seconds for kind, seconds in run.summary["seconds"].items() if kind not in kinds)
        for run in runs
    ]
    if any(rest):
        found["all else"] = rest
    return found


def draw(runs: Sequence[Run]) -> Picture | None:
    """A bar for each run that has spent any time; None without one."""
    named = dict(zip(names(runs), runs, strict=True))
    named = {name: run for name, run in named.items() if sum(run.summary["seconds"].values())}
    if not named:
        return None
    busy = list(named.values())
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(10, 1.6 + 0.26 * len(busy)), layout="constrained")
    left = [0.0] * len(busy)
    for (kind, seconds), colour, hatch in zip(
        by_kind(busy).items(), COLOURS, HATCHES, strict=False
    ):
        axis.barh(
            *(range(len(busy)), seconds, 0.8, left),
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=kind.replace("_", " and "),
        )
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    axis.set_yticks(range(len(busy)), [label(name) for name in named], fontsize=8)
    axis.set_ylim(len(busy) - 0.4, -0.6)
    axis.set_xlabel("time of rank 0 (s), as the host sees it")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8.5)
    return finished(figure, "time", "Where the time went: seconds of rank 0 by kind", wide=True)
