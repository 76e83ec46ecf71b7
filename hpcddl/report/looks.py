"""The colours and line styles of runs: one for each run, or for many runs by strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.run.records import Run, names

MOST = len(COLOURS)
"""Entries of a legend: a colour each."""
GREY = "0.6"


@dataclass(frozen=True)
class Look:
    """A line's colour and style, its width in points, and the legend's entry that it belongs to."""

    colour: str
    style: str
    width: float
    entry: str


def looks(runs: Sequence[Run]) -> list[Look]:
    """Gives up to `MOST` runs a look of their own; more share that of their strategy.

    Where there are more strategies than colours, those of the fewest runs share grey.
    """
    if len(runs) <= MOST:
        labels = [label(name) for name in names(runs)]
        if len(set(labels)) < len(labels):  # shortened, they are the same: numbered as in the table
            labels = [f"{i + 1}: {text}" for i, text in enumerate(labels)]
        return [
            Look(*_cycled(i), 1.8, text if run.outcome == "done" else f"{text} ({run.outcome})")
            for i, (run, text) in enumerate(zip(runs, labels, strict=True))
        ]
    counts = Counter(run.label for run in runs)
    own = [
        strategy for strategy, _ in counts.most_common(MOST if len(counts) <= MOST else MOST - 1)
    ]
    rest = len(runs) - sum(counts[strategy] for strategy in own)
    found = []
    for run in runs:
        if run.label in own:
            entry = f"{label(run.label)}: {counts[run.label]} runs"
            found.append(Look(*_cycled(own.index(run.label)), 0.8, entry))
        else:
            entry = f"{len(counts) - len(own)} other strategies: {rest} runs"
            found.append(Look(GREY, "-", 0.8, entry))
    return found


def legend_note(runs: Sequence[Run]) -> str:
    """Explains the legends, if they need it."""
    if len(runs) <= MOST:
        return ""
    return (
        f"More than {MOST} runs: lines are coloured by strategy. A cross ends a run that diverged."
    )


def _cycled(i: int) -> tuple[str, str]:
    return COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]


def label(name: str) -> str:
    """Shortens a name to 36 letters and escapes it: to matplotlib $ and a first _ are special."""
    text = name if len(name) <= 36 else f"{name[:17]}…{name[-18:]}"
    return " " * text.startswith("_") + text.replace("$", r"\$")
