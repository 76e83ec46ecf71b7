"""Writes the page about runs: one HTML file that needs no other file and no internet."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import hpcddl
from hpcddl.report import sheets
from hpcddl.report.looks import legend_note
from hpcddl.report.picture import Picture
from hpcddl.report.printed import Printed
from hpcddl.run.records import Run, names
from hpcddl.run.state import ENDED

COLUMNS = 8
"""Settings that the page shows side by side; all are in settings.csv."""
_SETTINGS = ("network", "data", "learners", "batch", "epochs")
_DECIMALS = {"held-out loss": 4, "best": 4, "accuracy %": 2, "seconds": 1, "MiB sent": 1}


def render(
    runs: Sequence[Run],
    paper: Sequence[Sequence[Printed]],
    sections: dict[str, list[Picture]],
    target: tuple[str, sheets.Rows] | None,
    files: Sequence[str],
    now: float,
) -> str:
    """Makes the HTML text.

    Args:
        sections: pictures of `learning`, `cost`, `noise` and `solutions`.
        target: what the runs needed to reach the target, in words and as a table.
        files: the CSV files beside the page.
        now: when the page is written, in seconds since the epoch.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("page.html")
    settings = sheets.settings(runs)
    results, common = _told_once(sheets.results(runs, paper, now))
    return page.render(
        title=f"{len(runs)} runs" if len(runs) > 1 else f"Run {names(runs)[0]}",
        states=_states(runs, now),
        written=datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=hpcddl.__version__,
        sheets=files,
        results=results,
        common=common,
        prior=_prior(runs),
        tables=list({number.table: number for found in paper for number in found}.values()),
        target=target[1] if target else None,
        target_head=target[0] if target else "",
        settings=[row[: COLUMNS + 1] for row in settings],
        hidden=max(0, len(settings[0]) - 1 - COLUMNS),
        legend_note=legend_note(runs),
        **sections,
        runs=[_again(run, name) for run, name in zip(runs, names(runs), strict=True)],
        cell=_cell,
        plain=lambda _, value: _text(value),
    )


def _states(runs: Sequence[Run], now: float) -> str:
    counts = Counter(run.state(now) for run in runs)
    said = [f"{counts[word]} {word}" for word in (*ENDED, "running", "stopped") if counts[word]]
    diverging = sum(run.summary["diverged"] and not run.ended for run in runs)
    return ", ".join(said) + (f" ({diverging} diverging)" if diverging else "")


def _told_once(results: sheets.Rows) -> tuple[sheets.Rows, str]:
    """Splits a table: columns that differ between runs, and the others in words."""
    head, *rows = results
    same = [
        i
        for i, values in enumerate(zip(*rows, strict=True))
        if head[i] in _SETTINGS and len(set(values)) == 1
    ]
    kept = [
        i for i in range(len(head)) if i not in same and any(row[i] is not None for row in rows)
    ]
    said = ", ".join(f"{head[i]} {_text(rows[0][i])}" for i in same)
    return [[row[i] for i in kept] for row in results], said


def _prior(runs: Sequence[Run]) -> str:
    """The class prior's loss of each data set, from the runs that have ended."""
    known = {
        f"loss {s['prior_loss']:.4f}, accuracy {100 * s['prior_accuracy']:.2f} % "
        f"of {s['classes']} classes"
        for s in (run.summary for run in runs)
        if s.get("prior_loss") is not None
    }
    return "; ".join(sorted(known))


def _again(run: Run, name: str) -> dict[str, Any]:
    """Says what a run was, and which command repeats it."""
    summary = run.summary
    words = summary.get("command") or ["train", f"{run.folder}/config.yaml"]
    command = f"hpcddl {shlex.join(words)}"
    if summary["learners"]:
        command = f"mpirun -np {summary['learners']} {command}"
    facts = [f"nodes {summary['nodes']}"] if "nodes" in summary else []
    facts += [f"{k} {v}" for k, v in summary.get("versions", {}).items()]
    facts += [
        "after {updates} updates from {from_learners} to {to_learners} learners".format(**change)
        for change in summary.get("restarts", [])
    ]
    if not run.ended:
        facts.append("not ended: by its config.yaml; the command is recorded at the end")
    return {
        "name": name,
        "description": run.config.get("description", ""),
        "command": command,
        "facts": ", ".join(facts),
        "config": yaml.safe_dump(run.config, sort_keys=False),
    }


def _cell(column: str, value: Any) -> str:
    """A number of the results as its column prints it."""
    if value is None or not isinstance(value, (int, float)):
        return _text(value)
    if column in _DECIMALS:
        return f"{value:,.{_DECIMALS[column]}f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
