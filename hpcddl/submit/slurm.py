"""Slurm's commands, called: sbatch, squeue, sacct."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from hpcddl.common.errors import UserError


def submit(words: Sequence[str]) -> str:
    """Calls sbatch; the new job's id.

    Raises:
        UserError: there is no Slurm, or it refuses the job.
    """
    # --parsable: ID, or ID;CLUSTER where there are several.
    return _call(words).strip().partition(";")[0]


def queued() -> dict[str, str]:
    """The user's jobs that wait or run, and their states; a waiting one's with the reason.

    The keys are job ids, ARRAY_TASK for the tasks of an array.

    Raises:
        UserError: there is no Slurm, or it does not answer.
    """
    states = {}
    for line in _call(["squeue", "--me", "--noheader", "--array", "-o", "%i|%T|%r"]).splitlines():
        job, state, reason = line.split("|", 2)
        waits = state == "PENDING" and reason not in ("None", "Priority", "Resources")
        states[job] = f"{state} ({reason})" if waits else state
    return states


def ended(jobs: Sequence[str]) -> dict[str, str]:
    """The states of jobs that have ended, as far as the cluster keeps accounts."""
    words = ["sacct", "--noheader", "--allocations", "--parsable2"]
    try:
        answer = _call([*words, "--format=JobID,State", f"--jobs={','.join(jobs)}"])
    except UserError:
        return {}
    pairs = (line.split("|") for line in answer.splitlines())
    # "CANCELLED by 1000"
    return {job: state.partition(" ")[0] for job, state in pairs}


def _call(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{words[0]}: not found; Slurm's commands must be on PATH") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"{words[0]}: {lines[-1].removeprefix(f'{words[0]}: error: ')}")
    return done.stdout
