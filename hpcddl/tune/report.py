"""What a search found: a table, a verdict, the command to go on with, tune.json."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from hpcddl.common.finite import finite
from hpcddl.common.study import StudyFolder, text_table
from hpcddl.tune.finished_search import FinishedSearch
from hpcddl.tune.searches import labels_of


def table(study: FinishedSearch) -> str:
    """One line per trial, the best first: the median that decides, and every seed's run."""
    labels = labels_of(study.trials[0].point)
    head = [*labels, f"median {study.by}", *(f"seed {seed}" for seed in study.trainer.seeds)]
    rows = [
        [*labels_of(trial.point).values(), finite(trial.cost(study.by)), *trial.runs]
        for trial in study.trials
    ]
    return "\n".join(text_table(head, rows, ".4f"))


def verdict(study: FinishedSearch) -> str:
    """Whether the best lies inside the grid, and the command that trains with it."""
    if study.best is None:
        runs = [run for trial in study.trials for run in trial.runs]
        if all(run.diverged for run in runs if run.lost):
            return f"all {len(study.trials)} trials diverged"
        return f"none of the {len(study.trials)} trials is better than guessing"
    best = ", ".join(f"{label} {value}" for label, value in labels_of(study.best.point).items())
    if not study.edges:
        where = f"best: {best}, inside the grid"
    else:
        edges = ", ".join(study.edges)
        where = f"best: {best}, ON THE EDGE of the grid ({edges}): {_why(study)}"
    return f"{where}\n{shlex.join(study.command)}"


def write(study: FinishedSearch, folder: StudyFolder) -> None:
    """Writes tune.json: all that the table says."""
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
                study.by: trial.cost(study.by),
                "runs": [asdict(run) for run in trial.runs],
            }
            for trial in study.trials
        ],
    }
    folder.write_json("tune.json", content)


def _why(study: FinishedSearch) -> str:
    """Why nothing was tried beyond the edge."""
    if study.search.most is None:
        return "the paper's search ends there"
    if len(study.trials) >= study.search.most:
        return f"--trials {study.search.most} ended its growth"
    return "the recipe allows no value beyond"
