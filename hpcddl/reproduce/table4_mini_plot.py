"""The picture of held-out loss by rate: a row per corpus, a panel per batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from hpcddl.common.colours import COLOURS
from hpcddl.reproduce.table4_mini_report import ALGORITHMS, Corpus, converges

_LOOKS = {"SSGD": (COLOURS[1], "-", "o"), "DPSGD": (COLOURS[2], "--", "s")}


def draw(corpora: Sequence[Corpus], folder: Path) -> None:
    """table4-mini.png and .pdf; who diverges stands on the line of guessing, marked by a cross."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = max(len(corpus.axes()[0]) for corpus in corpora)
    figure, grid = plt.subplots(
        len(corpora),
        columns,
        figsize=(4 * columns, 3.4 * len(corpora)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, corpus in zip(grid, corpora, strict=True):
        batches = corpus.axes()[0]
        for axis, batch in zip(row, batches, strict=False):
            _panel(axis, corpus, batch)
        for axis in row[len(batches) :]:
            axis.set_visible(False)
        row[0].set_ylabel(f"{corpus.name}\nheld-out loss (nats)")
    grid[0][0].legend(loc="upper left", bbox_to_anchor=(0, 0.9))
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"table4-mini.{suffix}", dpi=150)
    plt.close(figure)


def _panel(axis: Any, corpus: Corpus, batch: int) -> None:
    rates = corpus.axes()[1]
    one = corpus.trials[0]
    guessing = min(one.prior_loss, log(one.classes))
    axis.axhline(guessing, color="0.5", linewidth=1)
    for shift, algorithm in enumerate(ALGORITHMS):
        colour, line, marker = _LOOKS[algorithm]
        cells = {rate: corpus.at(algorithm, batch, rate) for rate in rates}
        good = [rate for rate in rates if converges(cells[rate])]
        middle = [median(t.loss for t in cells[rate] if t.converged) for rate in good]
        axis.plot(good, middle, line, color=colour, marker=marker, label=algorithm)
        for rate, trials in cells.items():
            # Crosses of both algorithms side by side, not one upon the other.
            place = rate * (1 + 0.04 * (2 * shift - 1))
            for t in trials:
                if t.converged:
                    axis.plot(rate, t.loss, marker, color=colour, markersize=3, alpha=0.5)
                else:
                    axis.plot(place, guessing, "x", color=colour)
    axis.set_xscale("log")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.minorticks_off()
    axis.set_xlabel("rate at the base batch")
    axis.set_title(f"batch {batch}")
    axis.grid(alpha=0.3)
