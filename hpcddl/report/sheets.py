"""The numbers of a page, also as CSV files beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcddl.common.files import write_whole
from hpcddl.report.printed import Printed
from hpcddl.run.records import Run, names, training_seconds

Rows = list[list[Any]]
"""The first is the head."""
_UNSAID = ("kind", "time")
"""Fields of records that are left out: the file says the one, and clocks say little of a run."""


def results(runs: Sequence[Run], paper: Sequence[Sequence[Printed]], now: float) -> Rows:
    """One line per run: its settings, its result or progress, and the papers' numbers."""
    head = ["run", "state", "strategy", "network", "data", "learners", "batch", "epoch", "epochs"]
    head += ["held-out loss", "best", "accuracy %", "paper", "seconds", "MiB sent"]
    rows: Rows = [head]
    for run, name, numbers in zip(runs, names(runs), paper, strict=True):
        summary, config = run.summary, run.config
        accuracy = summary.get("heldout_accuracy")
        rows.append(
            [
                *(name, state(run, now), run.label, config["model"]["name"]),
                Path(config.get("data", {}).get("path", "")).name,
                *(summary["learners"], config["global_batch"]),
                *(summary.get("epoch"), config.get("epochs")),
                *(summary["heldout_loss"], summary.get("best_heldout_loss")),
                None if accuracy is None else 100 * accuracy,
                "; ".join(f"{number.table}: {number.value}" for number in numbers) or None,
                *(training_seconds(summary), summary["bytes_sent"] / 2**20),
            ]
        )
    return rows


def state(run: Run, now: float) -> str:
    """Says how the run is (see hpcddl/run/state.py), and since which epoch it diverges."""
    word = run.state(now)
    if not run.summary["diverged"]:
        return word
    diverged = f"diverged in epoch {run.summary['diverged_since']['epoch']}"
    return diverged if run.ended else f"{word}, {diverged}"


def settings(runs: Sequence[Run]) -> Rows:
    """The settings in which the runs differ, as dotted keys, without the description."""
    flat = [{"learners": run.summary["learners"], **_flat(run.config)} for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one if key != "description")
    apart = [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat)]
    # A choice's own options tell less than those that all runs have.
    apart.sort(key=lambda key: any(key not in one for one in flat))
    return [
        ["run", *apart],
        *(
            [name, *(one.get(key) for key in apart)]
            for name, one in zip(names(runs), flat, strict=True)
        ),
    ]


def records(runs: Sequence[Run], kind: str) -> Rows:
    """Every evaluation, training or diagnostics record of all runs; seconds by kind in columns."""
    flat = [
        {"run": name, **_flat(record)}
        for run, name in zip(runs, names(runs), strict=True)
        for record in getattr(run, kind)
    ]
    forms = dict.fromkeys(tuple(record) for record in flat)
    head = list(dict.fromkeys(key for form in forms for key in form if key not in _UNSAID))
    return [head, *([record.get(key) for key in head] for record in flat)]


def write(rows: Rows, path: Path) -> None:
    """Writes a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue().encode())


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
