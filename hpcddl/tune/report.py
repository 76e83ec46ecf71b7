"""What a search found: a table, a verdict, the command to go on with, tune.json."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from math import isinf
from typing import Any

from hpcddl.common.files import write_whole
from hpcddl.common.table import aligned
from hpcddl.tune.searches import labels_of
from hpcddl.tune.study import Study


def table(study: Study) -> str:
    """One line per trial, the best first: the median that decides, and every seed's run."""
    labels = labels_of(study.trials[0].point)
    seeds = [f"seed {seed}" for seed in study.trainer.seeds]
    rows = [[*labels, f"median {study.by}", *seeds]]
    for trial in study.trials:
        cost = trial.cost(study.by)
        rows.append(
            [
                *labels_of(trial.point).values(),
                "-" if isinf(cost) else f"{cost:.4f}",
                *map(str, trial.runs),
            ]
        )
    return "\n".join(aligned(rows, left=0))


def verdict(study: Study) -> str:
    """Whether the best lies inside the grid, and the command that trains with it."""
    if study.best is None:
        return f"all {len(study.trials)} trials diverged"
    best = ", ".join(f"{label} {value}" for label, value in labels_of(study.best.point).items())
    if not study.edges:
        where = f"best: {best}, inside the grid"
    else:
        edges = ", ".join(study.edges)
        where = f"best: {best}, ON THE EDGE of the grid ({edges}): {_why(study)}"
    return f"{where}\n{shlex.join(study.command)}"


def write(study: Study) -> None:
    """tune.json: all that the table says."""
    best = study.best
    content: dict[str, Any] = {
        "search": study.search.description,
        "by": study.by,
        "recipe": study.trainer.recipe,
        "overrides": study.trainer.overrides,
        "launcher": study.trainer.launcher,
        "best": best and {"point": best.point, "edges": study.edges, "command": study.command},
        "trials": [
            {
                "point": trial.point,
                study.by: None if isinf(trial.cost(study.by)) else trial.cost(study.by),
                "runs": [asdict(run) for run in trial.runs],
            }
            for trial in study.trials
        ],
    }
    write_whole(study.trainer.out / "tune.json", json.dumps(content, indent=1).encode())


def _why(study: Study) -> str:
    """Why nothing was tried beyond the edge."""
    if study.search.most is None:
        return "the paper's search ends there"
    if len(study.trials) >= study.search.most:
        return f"--trials {study.search.most} ended its growth"
    return "the recipe allows no value beyond"
