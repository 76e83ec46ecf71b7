"""`hpcddl jobs`: the submitted jobs, their states, and how far their runs are."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcddl.common.bounds import at_least
from hpcddl.common.table import aligned
from hpcddl.run.state import RunState, read_state
from hpcddl.submit import slurm
from hpcddl.submit.written import FILE, Submitted, read_down

_DAY_SECONDS = 86400
_HEADER = ["job", "name", "state", "run", "epoch", "loss", "left", "output"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl jobs`."""
    parser.description = (
        "Show the jobs that `hpcddl submit` has submitted from this folder: Slurm's word on them, "
        "epoch and training loss of their runs, the time of training that is left at the speed so "
        f"far, and where their output is. They are written down in {FILE}."
    )
    parser.epilog = "example: hpcddl jobs; hpcddl jobs 4711"
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="show only these jobs, however old")
    parser.add_argument(
        "--days", type=at_least(0.0), default=7, help="show the jobs of the last DAYS days"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each job or task of a sweep."""
    since = time.time() - arguments.days * _DAY_SECONDS
    lines = [
        line
        for line in read_down()
        if (line.job in arguments.jobs if arguments.jobs else line.seconds >= since)
    ]
    if not lines:
        print(f"no jobs in {FILE}; see hpcddl submit --help")
        return 0
    states = slurm.queued()
    gone = [line.job for line in lines if not _known(line, states)]
    if gone:
        states = {**slurm.ended(gone), **states}
    print("\n".join(table(lines, states)))
    return 0


def table(lines: Sequence[Submitted], states: Mapping[str, str]) -> list[str]:
    """The jobs in aligned columns; `states` are Slurm's, of those that it still knows."""
    rows = [_HEADER]
    for line in lines:
        if not line.runs:
            counts = Counter(_of(line.job, states).values())
            several = [f"{count} {state}" for state, count in counts.items()]
            state = ", ".join(several if sum(counts.values()) > 1 else counts) or "ended"
            rows.append([line.job, line.name, state, "", "", "", "", line.output])
        for task, folder in line.runs.items():
            job = _number(line.job, task)
            state = states.get(job, states.get(line.job, "ended"))
            run = [folder, *_shown(read_state(Path(folder)), state)]
            rows.append([job, line.name, state, *run, line.output.replace("%a", task)])
    return aligned(rows, left=len(_HEADER))


def _number(job: str, task: str) -> str:
    return f"{job}_{task}" if task else job


def _known(line: Submitted, states: Mapping[str, str]) -> bool:
    """Whether `states` has the job, or all of its tasks that train."""
    if line.runs:
        return all(_number(line.job, task) in states for task in line.runs)
    return bool(_of(line.job, states))


def _of(job: str, states: Mapping[str, str]) -> dict[str, str]:
    """The states of a job, or of the tasks of an array."""
    return {key: state for key, state in states.items() if key.partition("_")[0] == job}


def _shown(run: RunState, state: str) -> tuple[str, str, str]:
    """Epoch, loss, and what is left or how the run is; `state` is Slurm's word on its job."""
    if run.epoch is None:
        return "-", "-", run.word
    loss = "-" if run.loss is None else f"{run.loss:.4f}"
    left = run.word
    if not run.ended and state == "RUNNING":
        left = "-" if run.left_seconds is None else _duration(run.left_seconds)
    return f"{run.epoch:.2f}/{run.epochs}", loss, left


def _duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, such as 3h05m."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"
