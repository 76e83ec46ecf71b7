"""Reads from a run's files how far it is, in the same words wherever runs are listed.

| word | the run |
| --- | --- |
| - | has not begun |
| running | has no summary, and its newest record is recent |
| stopped | has no summary, and has been silent for far longer than between any two records before |
| done | has ended by itself |
| not above chance | has ended by itself, and was never better than guessing |
| diverged | has ended by itself; is not finite, or was better and has come to stay at guessing |
| damaged | has files that are not as training writes them |
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

SILENCE = 3
"""Times the longest wait between two records so far: silent for longer, a run has stopped."""
PATIENCE_SECONDS = 60.0
"""Below that no silence counts."""
NOT_ABOVE = "not above chance"
ENDED = ("done", NOT_ABOVE, "diverged")
"""The words of runs that have come to their end."""
_TAIL_BYTES = 1 << 20  # several hundred diagnostics may follow the last report of a loss


@dataclass(frozen=True)
class RunState:
    """How far a run is; None stands for what is not known.

    Attributes:
        word: see the head of this file.
        loss: mean training loss of the newest steps, in nats.
        left_seconds: of training, as fast as so far.
    """

    word: str
    epoch: float | None = None
    epochs: int | None = None
    loss: float | None = None
    left_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end, well or not."""
        return self.word in ENDED


def read_state(run: Path, now: float | None = None) -> RunState:
    """Reads how far the run in a folder is, without the whole of its records.

    Args:
        now: in seconds since the epoch; the present unless given.
    """
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        start, epochs = config["start_epoch"], config["epochs"]
        summary = read_summary(run)
        records = _newest_records(run / "metrics.jsonl")
        times = [record["time"] for record in records]
        word = state_word(run, summary, times, time.time() if now is None else now)
        reports = [record for record in records if record["kind"] == "train"]
        if not reports:
            return RunState(word, start, epochs)
        last = reports[-1]
        done, spent = last["epoch"] - start, sum(last["seconds"].values())
        left = spent / done * (epochs - last["epoch"]) if done > 0 else None
        return RunState(word, last["epoch"], epochs, last["loss"], left)
    except FileNotFoundError:
        return RunState("-")
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        return RunState("damaged")


def read_summary(run: Path) -> dict[str, Any] | None:
    """Reads a run's summary.json; None where the run has not ended.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        summary = json.loads((run / "summary.json").read_text())
    except FileNotFoundError:
        return None
    if not isinstance(summary, dict):
        raise ValueError("summary.json is no JSON object")
    return summary


def state_word(
    run: Path, summary: dict[str, Any] | None, times: Sequence[float], now: float
) -> str:
    """Finds the word for a run that has begun.

    Args:
        times: when its records were written, ascending, in seconds since the epoch as `now`.
    """
    if summary is not None:
        return outcome(summary)
    last = times[-1] if times else (run / "config.yaml").stat().st_mtime
    longest = max((after - before for before, after in pairwise(times)), default=0.0)
    return "stopped" if now - last > max(PATIENCE_SECONDS, SILENCE * longest) else "running"


def outcome(summary: dict[str, Any]) -> str:
    """Finds the word for a run by its summary: one of `ENDED`."""
    if summary["diverged"]:  # earlier versions also said so of runs that were not above chance
        return "diverged"
    return NOT_ABOVE if summary.get("not_above_chance") else "done"


def _newest_records(path: Path) -> list[dict[str, Any]]:
    """Reads the last whole lines of a file of records; none where it is not there."""
    try:
        with open(path, "rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES)
            file.seek(begin)
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    # The first may be the end of a longer one; the last may be half written.
    whole = (line for line in lines[begin > 0 :] if line.endswith(b"\n"))
    return [json.loads(line) for line in whole]
