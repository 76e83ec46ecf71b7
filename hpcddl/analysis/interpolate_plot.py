"""The picture of the line through two runs' consensus."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from hpcddl.analysis.line import Line, Losses, described
from hpcddl.common.colours import COLOURS
from hpcddl.common.study import StudyFolder

WIDE = 30
"""A ratio of losses above which their scale is logarithmic."""


def draw(found: Losses, line: Line, folder: StudyFolder) -> None:
    """Draws interpolate.png and .pdf: loss and error by t."""
    with folder.picture("interpolate", 1, 2, figsize=(11, 4.8)) as (figure, (loss, error)):
        for axis, train, heldout in (
            (loss, found.train_loss, found.heldout_loss),
            (error, 100 * found.train_error, 100 * found.heldout_error),
        ):
            for values, label, colour, style in (
                (train, "training set", COLOURS[0], "-o"),
                (heldout, "held-out set", COLOURS[1], "--s"),
            ):
                shown = np.where(np.isfinite(values), values, np.nan)
                axis.plot(line.at, shown, style, color=colour, markersize=3.5, label=label)
            for t, name in zip((0, 1), _names(found), strict=True):
                axis.axvline(t, color="0.5", linewidth=1)
                axis.annotate(
                    name,
                    (t, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
            axis.set_xlabel("t of (1 - t) w$_A$ + t w$_B$")
        losses = np.concatenate([found.train_loss, found.heldout_loss])
        known = losses[np.isfinite(losses)]
        if known.size and known.max() > WIDE * known.min():
            loss.set_yscale("log")
        loss.set_ylabel("loss (nats)")
        error.set_ylabel("error (%)")
        loss.legend()
        figure.supxlabel("\n".join(textwrap.wrap(described(found), 180)), fontsize=8)


def _names(found: Losses) -> list[str]:
    folders = map(Path, found.facts["runs"])
    return [f"{which}: {folder.name}" for which, folder in zip("AB", folders, strict=True)]
