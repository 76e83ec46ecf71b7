"""Reads run directories: what a run says of itself, whether it has ended or is still going."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from os.path import commonpath
from pathlib import Path
from typing import Any

import yaml

from hpcddl.common.errors import UserError
from hpcddl.run.old_names import with_new_names
from hpcddl.run.state import outcome, read_summary, state_word

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run: its config, its summary, and what it wrote while it trained, in that order.

    A run that has not `ended` has no summary yet: here it has one of what its records say so far,
    with None for what only the end tells.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    evaluations: list[Record]
    training: list[Record]
    diagnostics: list[Record]
    ended: bool

    @property
    def label(self) -> str:
        """The strategy as its config names it, such as `dpsgd random_pair`."""
        strategy = self.config["strategy"]
        topology = strategy.get("topology", {}).get("name", "")
        noise = "*" if self.config["weight_noise"]["std"] else ""
        return f"{strategy['name']}{noise} {topology}".strip()

    @property
    def outcome(self) -> str:
        """`done`, `not above chance`, or `diverged`, by its numbers so far."""
        return outcome(self.summary)

    def state(self, now: float) -> str:
        """Finds its word of hpcddl/run/state.py; `now` is in seconds since the epoch."""
        records = (*self.evaluations, *self.training, *self.diagnostics)
        times = sorted(record["time"] for record in records)
        return state_word(self.folder, self.summary if self.ended else None, times, now)


def read_run(folder: Path, *, unfinished: bool = False) -> Run:
    """Reads a run that has ended, or any where `unfinished` ones will do.

    Raises:
        UserError: not a run directory, not as training writes it, or the run has not finished.
    """
    ended = (folder / "summary.json").is_file()
    for name in ("config.yaml", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise UserError(f"run {folder}: no {name} (not a run directory)")
    if not (ended or unfinished):
        raise UserError(f"run {folder}: no summary.json (not finished?)")
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text())
        config = with_new_names(values, f"run {folder}: config.yaml")
        text = (folder / "metrics.jsonl").read_text()
        lines = text.splitlines()
        if not ended and not text.endswith("\n"):
            lines = lines[:-1]  # the run is writing it
        kinds: dict[str, list[Record]] = {"evaluation": [], "train": [], "diagnostics": []}
        for line in lines:
            record = json.loads(line)
            if record["kind"] in kinds:
                kinds[record["kind"]].append(record)
        run = Run(
            folder,
            config,
            {},
            evaluations=kinds["evaluation"],
            training=kinds["train"],
            diagnostics=kinds["diagnostics"],
            ended=ended,
        )
        summary = read_summary(folder)
        if summary is None:
            summary = _so_far(run)
        _check(config, summary)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = " ".join(str(error).split())
        raise UserError(f"run {folder}: not as training writes it: {what}") from None
    run.summary.update(summary)
    return run


def names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs' folders apart: their paths from the folder that holds all."""
    parent = common_parent(runs)
    return [str(run.folder.resolve().relative_to(parent)) for run in runs]


def common_parent(runs: Sequence[Run]) -> Path:
    """The innermost folder that holds all runs' folders."""
    return Path(commonpath([run.folder.resolve().parent for run in runs]))


def training_seconds(record: dict[str, Any]) -> float:
    """Seconds of rank 0 spent training: all but evaluation, checkpoints and diagnostics."""
    aside = ("evaluate", "checkpoint", "diagnose")
    return sum(value for name, value in record["seconds"].items() if name not in aside)


def _so_far(run: Run) -> dict[str, Any]:
    totals = max((*run.evaluations, *run.training), key=lambda r: r["samples"], default=None)
    losses = [e["heldout_loss"] for e in run.evaluations if e["heldout_loss"] is not None]
    last = run.evaluations[-1] if run.evaluations else {}
    bad = [e["epoch"] for e in run.evaluations if e["heldout_loss"] is None]
    bad += [ceil(record["epoch"]) for record in run.training if record["loss"] is None]
    return {
        "diverged": bool(bad),
        "diverged_since": {"epoch": min(bad)} if bad else None,
        "heldout_loss": last.get("heldout_loss"),
        "heldout_accuracy": last.get("heldout_accuracy"),
        "best_heldout_loss": min(losses, default=None),
        "prior_loss": None,
        "epoch": totals["epoch"] if totals else 0,
        "learners": _learners(run.folder),
        "bytes_sent": totals["bytes_sent"] if totals else 0,
        "seconds": totals["seconds"] if totals else {},
    }


def _learners(folder: Path) -> int | None:
    """Reads how many learners wrote the newest checkpoint; None where there is none."""
    # Not of those that are being written, nor of damaged ones, which are set aside.
    manifests = [*folder.glob("checkpoints/[!.]*[0-9]/manifest.json")]
    if not manifests:
        return None
    newest = max(manifests, key=lambda path: path.stat().st_mtime_ns)
    learners: int = json.loads(newest.read_text())["learners"]
    return learners


def _check(config: Any, summary: Any) -> None:
    """What every reader takes for granted; a KeyError or TypeError otherwise."""
    for section in ("model", "strategy"):
        config[section]["name"]
    for key in ("global_batch", "weight_noise"):
        config[key]
    for key in ("heldout_loss", "diverged", "learners", "bytes_sent", "seconds"):
        summary[key]
