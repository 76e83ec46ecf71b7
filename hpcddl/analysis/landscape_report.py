"""Reports landscapes: a table, and files of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hpcddl.analysis.several_runs import samples_said
from hpcddl.analysis.surface import Landscape, SurfacePlan
from hpcddl.common.study import StudyFolder
from hpcddl.common.table import aligned

HEAD = ("run", "strategy", "epoch", "loss at w_a", "error %", "least", "greatest", "mean rise")


def table(found: Sequence[Landscape], plan: SurfacePlan) -> str:
    """One line per run, and what was measured below."""
    rows = [
        [
            landscape.name,
            landscape.facts["strategy"],
            str(landscape.facts["epoch"]),
            f"{landscape.centre[0]:.4f}",
            f"{100 * landscape.centre[1]:.2f}",
            f"{landscape.loss.min():.4f}",
            f"{landscape.loss.max():.4f}",
            f"{landscape.mean_rise:.4f}",
        ]
        for landscape in found
    ]
    return "\n".join([*aligned([list(HEAD), *rows], left=2), described(found, plan)])


def described(found: Sequence[Landscape], plan: SurfacePlan) -> str:
    """What was measured, in one line."""
    where = f"{plan.points} x {plan.points} points along two random directions"
    if plan.directions:
        where = f"{plan.points} points along each of {plan.directions} random directions"
    unit = "1 is each filter's length" if plan.normalise == "filter" else "1 is N(0, 1) per weight"
    names = {"train": "training", "heldout": "held-out"}
    samples = samples_said([landscape.facts for landscape in found], names)
    norm = "; ".join(sorted({landscape.facts["batch_norm"] for landscape in found}))
    return (
        f"{where} to ±{plan.scale:g} ({unit}), seed {plan.seed}; {samples}; batch norm: {norm}; "
        "mean rise: of the loss over all points above that at w_a"
    )


def write(found: Sequence[Landscape], plan: SurfacePlan, folder: StudyFolder) -> None:
    """Writes NAME.csv with every point of a run, and landscape.json with the rest."""
    runs = [
        {
            "name": landscape.name,
            **landscape.facts,
            "loss": landscape.centre[0],
            "error": landscape.centre[1],
            "least": float(landscape.loss.min()),
            "greatest": float(landscape.loss.max()),
            "mean_rise": landscape.mean_rise,
        }
        for landscape in found
    ]
    folder.write_json("landscape.json", {**asdict(plan), "runs": runs})
    for landscape in found:
        folder.write_csv(f"{landscape.name}.csv", [_head(plan), *_rows(landscape, plan)])


def _head(plan: SurfacePlan) -> list[str]:
    where = ["direction", "along"] if plan.directions else ["along_first", "along_second"]
    return [*where, "loss", "error"]


def _rows(landscape: Landscape, plan: SurfacePlan) -> list[list[Any]]:
    """Every place of the grid, or of the lines."""
    along = plan.along.tolist()
    first = range(plan.directions) if plan.directions else along
    values = np.stack([landscape.loss, landscape.error], axis=-1).tolist()
    return [
        [a, b, *pair]
        for a, line in zip(first, values, strict=True)
        for b, pair in zip(along, line, strict=True)
    ]
