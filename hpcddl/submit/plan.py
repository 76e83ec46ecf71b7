"""From what a user asks for to the jobs of a submission: pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hpcddl.common.errors import UserError
from hpcddl.common.ranges import ranges
from hpcddl.recipes import name_of
from hpcddl.submit.array import tasks_of
from hpcddl.submit.job import Job, last_value

if TYPE_CHECKING:
    from hpcddl.sweeps.definition import SweepRun

OUTPUT = "slurm"  # the folder of the jobs' output, beside runs/


@dataclass(frozen=True)
class Wishes:
    """What holds for all jobs of a submission.

    Attributes:
        defaults: sbatch's options in the batch script and the site's file.
        options: those that go on the command line: the site's, then the user's.
        after: ids of jobs that must have ended well before.
        chain: how many jobs, one after the other, go on with the same run.
        report: whether a last job reports on the runs.
    """

    defaults: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    nodes: int | None = None
    after: tuple[str, ...] = ()
    chain: int = 1
    report: bool = False
    report_options: tuple[str, ...] = ()

    def size(self) -> tuple[int, int]:
        """Nodes, and ranks on each of them.

        Raises:
            UserError: an option of sbatch's leaves them open.
        """
        options = (*self.defaults, *self.options)
        nodes = self.nodes or _whole(options, "--nodes")
        return nodes, _whole(options, "--ntasks-per-node")


def train_jobs(wishes: Wishes, recipe: str, words: Sequence[str], run: str) -> list[Job]:
    """Jobs that train one run, one after the other."""
    nodes = (f"--nodes={wishes.nodes}",) if wishes.nodes else ()
    options = (_output("%j"), *wishes.options, *nodes)
    name = name_of(recipe)
    first = Job("train", name, options, (recipe, *words, "--out", run), runs={"": run})
    jobs = _chained([first], wishes)
    # Not after a failure: what led to it is in the job's output.
    return jobs + _report(wishes, [run], ("afterok", len(jobs) - 1))


def sweep_jobs(
    wishes: Wishes,
    sweep: str,
    words: Sequence[str],
    runs: Sequence[SweepRun],
    learners: int,
    folder: str,
    array: str | None,
) -> list[Job]:
    """Arrays that train the runs of a sweep, one array for each number of learners.

    `array` chooses some of the runs; `learners` are those of runs that do not say.

    Raises:
        UserError: runs beyond the sweep, learners that do not fill their nodes.
    """
    tasks = tasks_of(array, len(runs)) if array else range(len(runs))
    groups = defaultdict(list)
    for task in tasks:
        groups[runs[task].learners or learners].append(task)
    limit = array[array.index("%") :] if array and "%" in array else ""
    arrays = []
    for count, members in groups.items():
        nodes, per_node = _nodes_for(count, wishes)
        options = (
            _output("%A_%a"),
            *wishes.options,
            f"--nodes={nodes}",
            f"--ntasks-per-node={per_node}",
            f"--array={ranges(members)}{limit}",
        )
        folders = {str(task): f"{folder}/{runs[task].name}" for task in members}
        name = name_of(sweep)
        arrays.append(Job("sweep", name, options, (sweep, *words, "--out", folder), runs=folders))
    jobs = _chained(arrays, wishes)
    every = [f"{folder}/{runs[task].name}" for task in tasks]
    # Also when some have failed: the report says so.
    ends = [("afterany", place) for place in range(len(jobs) - len(arrays), len(jobs))]
    return jobs + _report(wishes, every, *ends)


def prep_jobs(wishes: Wishes, words: Sequence[str], tasks: int) -> list[Job]:
    """An array that packs, and a job that verifies and finishes the set."""
    options = (_output("%A_%a"), *wishes.options, f"--array=1-{tasks}")
    after = tuple(("afterok", job) for job in wishes.after)
    pack = Job("prep", "prep", options, ("--no-merge", *words), after)
    options = (_output("%j"), "--time=04:00:00", *wishes.options)
    return [pack, Job("prep", "merge", options, (*words, "--merge"), (("afterok", 0),))]


def report_jobs(wishes: Wishes, words: Sequence[str]) -> list[Job]:
    """One job that reports on runs, when those before have ended in whatever way."""
    after = tuple(("afterany", job) for job in wishes.after)
    return [Job("report", "report", (_output("%j"), *wishes.options), tuple(words), after)]


def _chained(jobs: list[Job], wishes: Wishes) -> list[Job]:
    """`jobs`, then the same again as often as asked for, each when its predecessor has ended."""
    before = tuple(("afterok", job) for job in wishes.after)
    chained = [replace(job, after=before) for job in jobs]
    for link in range(1, wishes.chain):
        for place, job in enumerate(jobs):
            # afterany: a job that ran out of time has not ended well, and is why there is a next.
            chained.append(replace(job, after=(("afterany", (link - 1) * len(jobs) + place),)))
    return chained


def _report(wishes: Wishes, runs: Sequence[str], *after: tuple[str, int]) -> list[Job]:
    options = (_output("%j"), *wishes.report_options)
    return [Job("report", "report", options, (*runs, "--begun"), after)] if wishes.report else []


def _nodes_for(learners: int, wishes: Wishes) -> tuple[int, int]:
    """Nodes, and ranks on each, for so many learners."""
    _, per_node = wishes.size()
    nodes = wishes.nodes or -(-learners // per_node)
    if learners % nodes or learners // nodes > per_node:
        raise UserError(
            f"--nodes {nodes}: must divide the {learners} learners of the sweep's runs, with at "
            f"most {per_node} on a node (--sbatch=--ntasks-per-node=N)"
        )
    return nodes, learners // nodes


def _whole(options: Sequence[str], name: str) -> int:
    """The number that the last of sbatch's options of this name gives; 1 without one."""
    text = last_value(options, name) or "1"
    if not text.isdigit():
        raise UserError(f"{name}={text}: must be a whole number")
    return int(text)


def _output(number: str) -> str:
    return f"--output={OUTPUT}/%x-{number}.out"
