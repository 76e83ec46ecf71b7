"""The picture of held-out loss by rate: a row per corpus, a panel per batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcddl.common.axes import LINES, MARKERS, ticks_at
from hpcddl.common.study import StudyFolder
from hpcddl.reproduce.table4_mini_report import ALGORITHMS, Corpus


def draw(corpora: Sequence[Corpus], folder: StudyFolder) -> None:
    """Draws all corpora; a cross on the line of guessing is a run that does not converge."""
    rows, columns = len(corpora), max(len(corpus.batches) for corpus in corpora)
    options: dict[str, Any] = {
        "figsize": (4 * columns, 3.4 * rows),
        "sharey": "row",
        "squeeze": False,
    }
    with folder.picture("table4-mini", rows, columns, **options) as (_, grid):
        for row, corpus in zip(grid, corpora, strict=True):
            for axis, batch in zip(row, corpus.batches, strict=False):
                _panel(axis, corpus, batch)
            for axis in row[len(corpus.batches) :]:
                axis.set_visible(False)
            row[0].set_ylabel(f"{corpus.name}\nheld-out loss (nats)")
        grid[0][0].legend(loc="upper left", bbox_to_anchor=(0, 0.9))


def _panel(axis: Any, corpus: Corpus, batch: int) -> None:
    guessing = corpus.outcomes[0].guessing_loss
    axis.axhline(guessing, color="0.5", linewidth=1)
    for side, algorithm in zip((-1, 1), ALGORITHMS, strict=True):
        look, marker = LINES[algorithm], MARKERS[algorithm]
        losses = corpus.losses(algorithm, batch)
        axis.plot([*losses], [*losses.values()], marker=marker, label=algorithm, **look)
        for rate in corpus.rates:
            for outcome in corpus.at(algorithm, batch, rate):
                dot = {"color": look["color"], "linestyle": ""}
                if outcome.converged:
                    axis.plot(rate, outcome.loss, marker=marker, markersize=3, alpha=0.5, **dot)
                else:
                    # Crosses of both algorithms side by side, not one upon the other.
                    axis.plot(rate * (1 + 0.04 * side), guessing, marker="x", **dot)
    ticks_at(axis, corpus.rates)
    axis.set(xlabel="rate at the base batch", title=f"batch {batch}")
