"""How often each class occurs in a training split, as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.data.manifest import Manifest
from hpcddl.inspect.names import class_names

_NAMED = 30  # so many bars have room for names
_WORDS = (1, 10, 100, 1000, 10_000)


def draw_classes(axis: Any, folder: Path, manifest: Manifest) -> None:
    """Label counts in falling order on a log scale, beside the equal share."""
    counts = np.asarray(manifest.class_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    seen = int(np.count_nonzero(counts))
    ranks = np.arange(1, seen + 1)
    few = manifest.classes <= _NAMED
    heights = counts[order[:seen]]
    if few:
        axis.bar(ranks, heights, color="#0072B2", width=0.7)
        names = class_names(folder, manifest)
        places = np.arange(1, manifest.classes + 1)
        axis.set_xticks(places, [_short(names[i]) for i in order.tolist()])
        for label in axis.get_xticklabels():
            label.set_parse_math(False)
            label.set_rotation(30 if max(map(len, names)) > 5 else 0)
        axis.set_xlabel("class")
    else:
        axis.fill_between(ranks, heights, 0.5, color="#0072B2", alpha=0.35, step="mid")
        axis.step(ranks, heights, color="#0072B2", where="mid")
        axis.set_xlabel("class, by rank")
    equal = counts.sum() / manifest.classes
    axis.axhline(equal, color="#D55E00", linestyle="--", linewidth=1)
    axis.annotate(
        "if all were equal",
        (1, equal),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        color="#D55E00",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
    axis.set_yscale("log")
    axis.set_ylim(0.7, 2.0 * max(heights.max(initial=1), 1))
    axis.set_xlim(0.4 if few else 0, manifest.classes + (0.6 if few else 1))
    axis.set_ylabel("labels in training")
    axis.grid(axis="y", alpha=0.3)
    never = manifest.classes - seen
    axis.set_title(
        f"{counts.sum():,} labels of {manifest.classes:,} classes, {never:,} of them never seen"
    )


def draw_zipf(axis: Any, names: list[str], manifest: Manifest) -> None:
    """Token counts over rank on two log scales, with some words; Zipf's law is the line 1/rank."""
    counts = np.asarray(manifest.class_counts, np.int64)
    order = np.argsort(-counts, kind="stable")
    seen = int(np.count_nonzero(counts))
    heights = counts[order[:seen]]
    ranks = np.arange(1, seen + 1)
    axis.loglog(ranks, heights, color="#0072B2", label="training split")
    axis.loglog(ranks, heights[:1] / ranks, "--", color="#D55E00", label="1 / rank")
    for rank in _WORDS:
        if rank <= seen:
            axis.plot(rank, heights[rank - 1], "o", color="#0072B2", markersize=4)
            axis.annotate(
                names[int(order[rank - 1])],
                (rank, heights[rank - 1]),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=9,
                parse_math=False,
            )
    axis.set_ylim(0.7, 2.5 * heights.max(initial=1))
    axis.set_xlabel("rank of the word")
    axis.set_ylabel("tokens in training")
    axis.grid(alpha=0.3)
    axis.legend()
    axis.set_title(
        f"{counts.sum():,} tokens of {manifest.classes:,} words, "
        f"{manifest.classes - seen:,} of them never seen, {np.count_nonzero(counts == 1):,} once"
    )


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:12]}..."
