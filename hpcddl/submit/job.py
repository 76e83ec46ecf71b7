"""A job and the words of `sbatch` that submit it; nothing is ever pasted into shell text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One job, or an array of jobs, of a submission.

    Attributes:
        kind: which batch script, jobs/KIND.sbatch.
        options: sbatch's, the later before the earlier where both say the same.
        words: the script's.
        after: dependencies, each (afterok or afterany, a job id of Slurm or the place of an earlier
            job of the same submission).
        runs: the run directory of each task, by its index in the array, "" where there is none.
    """

    kind: str
    name: str
    options: tuple[str, ...]
    words: tuple[str, ...]
    after: tuple[tuple[str, str | int], ...] = ()
    runs: Mapping[str, str] = field(default_factory=dict)


def sbatch_words(job: Job, scripts: Path, site: Path | None, ids: Sequence[str]) -> list[str]:
    """The command line that submits `job` after those whose `ids` Slurm has given already."""
    dependency = []
    if job.after:
        conditions = [f"{how}:{ids[on] if isinstance(on, int) else on}" for how, on in job.after]
        # Without the second a job whose condition can no longer come true waits for ever.
        dependency = [f"--dependency={','.join(conditions)}", "--kill-on-invalid-dep=yes"]
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job.name}",
        *job.options,
        *dependency,
        str(scripts / f"{job.kind}.sbatch"),
        *(["--site", str(site)] if site else []),
        *job.words,
    ]


def last_value(options: Sequence[str], name: str) -> str | None:
    """What the last `NAME=value` among sbatch's options says, None where none does."""
    values = [option.partition("=")[2] for option in options if option.startswith(f"{name}=")]
    return values[-1] if values else None
