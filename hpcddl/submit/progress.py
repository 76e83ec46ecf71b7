"""How far a run is, from its directory: epochs, loss, the time it still needs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcddl.run.records import outcome

_TAIL_BYTES = 1 << 20  # several hundred diagnostics may follow the last report of a loss


@dataclass(frozen=True)
class RunProgress:
    """How far it is; None stands for what is not known.

    Attributes:
        loss: mean training loss of the newest steps.
        left_seconds: of training, as fast as so far.
        ended: done or diverged, "" while there is no summary.
    """

    epoch: float
    epochs: int
    loss: float | None
    left_seconds: float | None
    ended: str


def read_progress(run: Path) -> RunProgress | None:
    """What a run directory says, None where no run has begun."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except FileNotFoundError:
        return None
    epochs, start = config["epochs"], config["start_epoch"]
    record = _newest(run / "metrics.jsonl")
    if record is None:
        return RunProgress(start, epochs, None, None, "")
    done = record["epoch"] - start
    spent = sum(record["seconds"].values())
    left = spent / done * (epochs - record["epoch"]) if done > 0 else None
    return RunProgress(record["epoch"], epochs, record["loss"], left, outcome(run))


def _newest(path: Path) -> dict[str, Any] | None:
    """The last report of a training loss; the last line may be half written."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        if line.endswith(b"\n") and line.startswith(b'{"kind": "train"'):
            record: dict[str, Any] = json.loads(line)
            return record
    return None
