"""What was submitted from a folder: slurm/jobs.jsonl, one line for each job or array."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcddl.submit.job import Job, last_value
from hpcddl.submit.plan import OUTPUT

FILE = Path(OUTPUT) / "jobs.jsonl"


@dataclass(frozen=True)
class Submitted:
    """One line: the job as Slurm knows it, and the run directory of each of its tasks."""

    job: str
    kind: str
    name: str
    runs: Mapping[str, str]
    output: str
    seconds: float  # since the epoch
    command: Sequence[str]


def write_down(job: Job, number: str, command: Sequence[str]) -> Submitted:
    """Appends a line about what sbatch has just accepted."""
    pattern = last_value(job.options, "--output") or ""
    output = pattern.replace("%x", job.name).replace("%j", number).replace("%A", number)
    line = Submitted(number, job.kind, job.name, job.runs, output, time.time(), command)
    with open(FILE, "a") as file:
        file.write(json.dumps(asdict(line)) + "\n")
    return line


def read_down(folder: Path = Path()) -> list[Submitted]:
    """All lines, the oldest first; none where nothing was submitted from `folder`."""
    try:
        text = (folder / FILE).read_text()
    except FileNotFoundError:
        return []
    return [Submitted(**json.loads(line)) for line in text.splitlines()]
