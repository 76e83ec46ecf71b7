"""Reads run directories: what a finished run says of itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcddl.errors import UserError


@dataclass(frozen=True)
class Run:
    """One finished run: its config, its summary and its evaluations, in the order of epochs."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    evaluations: list[dict[str, Any]]

    @property
    def label(self) -> str:
        """The strategy as its config names it, such as `dpsgd random_pair`."""
        strategy = self.config["strategy"]
        topology = strategy.get("topology", {}).get("name", "")
        noise = "*" if self.config["weight_noise"]["std"] else ""
        return f"{strategy['name']}{noise} {topology}".strip()


def read_run(folder: Path) -> Run:
    """Reads a finished run.

    Raises:
        UserError: not a run directory, or the run has not finished.
    """
    for name in ("config.yaml", "metrics.jsonl", "summary.json"):
        if not (folder / name).is_file():
            hint = " (not finished?)" if name == "summary.json" else " (not a run directory)"
            raise UserError(f"run {folder}: no {name}{hint}")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return Run(
        folder,
        yaml.safe_load((folder / "config.yaml").read_text()),
        json.loads((folder / "summary.json").read_text()),
        [record for record in records if record["kind"] == "evaluation"],
    )


def training_seconds(record: dict[str, Any]) -> float:
    """Seconds of rank 0 spent training: all but evaluation, checkpoints and diagnostics."""
    aside = ("evaluate", "checkpoint", "diagnose")
    return sum(value for name, value in record["seconds"].items() if name not in aside)
