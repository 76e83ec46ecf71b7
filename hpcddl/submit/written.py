"""What was submitted from a folder: slurm/jobs.jsonl, one line for each job or array."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcddl.common.errors import warn
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
    text = json.dumps(asdict(line)) + "\n"
    with open(FILE, "a+b") as file:
        # Where a full disk has torn the line before, this one must not go on with it.
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            text = f"\n{text}"
        file.write(text.encode())
    return line


def read_down(folder: Path = Path()) -> list[Submitted]:
    """Reads all lines, the oldest first; none where nothing was submitted from `folder`.

    A line that a full disk has torn is left out, with a warning.
    """
    try:
        text = (folder / FILE).read_text(errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(Submitted(**json.loads(line)))
        except (ValueError, TypeError):
            warn(f"{folder / FILE}: line {number} is torn; left out")
    return lines
