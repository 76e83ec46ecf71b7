"""The skeleton of every benchmark: its command, its ranks, its turns and clocks, its tables.

A benchmark is a function `measure`, whose keyword parameters are the command's options and whose
result is the JSON that the command prints, and a function that says the result as text.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.common.leftovers import make_temporary_folder
from hpcddl.common.table import aligned

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

Result = dict[str, Any]
Numbers = NDArray[np.float64]
Task = TypeVar("Task")
Work = Callable[[], object]


def describe(parser: argparse.ArgumentParser, doc: str | None) -> Callable[..., argparse.Action]:
    """Describes a command by its module's docstring, and gives it `--json`.

    The docstring's last paragraph is the example. Returns what adds the other options.
    """
    parser.description, _, parser.epilog = (doc or "").strip().rpartition("\n\n")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser.add_argument


def command(
    measure: Callable[..., Result],
    as_text: Callable[[Result], str],
    check: Callable[[int], object] | None = None,
) -> Callable[[argparse.Namespace], int]:
    """Makes a command's `run`, which measures, and prints on rank 0.

    With `check` all ranks of the launcher measure: `measure` takes their World before the options,
    and `check` raises UserError for a number of ranks that the benchmark refuses. Without it one
    process measures, and MPI is not started.
    """

    def run(arguments: argparse.Namespace) -> int:
        options = dict(vars(arguments))
        as_json = options.pop("json")
        rank = 0
        if check is None:
            result = measure(**options)
        else:
            from hpcddl.cluster.world import World

            world = World.create(options)
            rank = world.rank
            with world.failing_together():
                world.together(partial(check, world.size))
                result = measure(world, **options)
        if rank == 0:
            print(json.dumps(result) if as_json else as_text(result))
        return 0

    return run


def even(ranks: int) -> None:
    """Raises UserError for an odd number of ranks, of which one would have no partner."""
    if ranks % 2:
        raise UserError(f"ranks: {ranks}: must be an even number; fix: mpirun -np 2 ...")


@contextmanager
def temporary_folder(parent: Path | None) -> Iterator[Path]:
    """Makes a folder in the one of `--dir`; it is gone afterwards.

    Raises:
        UserError: the system refuses the folder, or a file in it.
    """
    try:
        folder = make_temporary_folder(parent, "hpcddl-bench")
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"--dir: {parent}: {error.strerror}") from None


def machine() -> dict[str, Any]:
    """Names the machine, and counts the cores that this process may use."""
    return {"machine": platform.node(), "cores": len(os.sched_getaffinity(0))}


def in_turns(
    tasks: Mapping[str, Task], rounds: int, measure: Callable[[Task], Any], warm: int = 1
) -> dict[str, Numbers]:
    """Measures every task once per round, so that a slow moment of the machine meets them all.

    The first `warm` rounds, which touch page cache, page tables and buffers, do not count.

    Returns:
        What `measure` returned for each task: (rounds,), or (rounds, k) for k numbers at once.
    """
    found: dict[str, list[Any]] = {name: [] for name in tasks}
    for _ in range(warm + rounds):
        for name, task in tasks.items():
            found[name].append(measure(task))
    return {name: np.array(values[warm:]) for name, values in found.items()}


def seconds(work: Work) -> float:
    """Times `work`."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def slowest(comm: Intracomm, work: Work) -> float:
    """Times `work` on the rank that takes longest; all begin together."""
    comm.Barrier()
    return max(comm.allgather(seconds(work)))


def medians(times: Mapping[str, Numbers]) -> dict[str, float]:
    """Takes the median over the rounds of each task."""
    return {name: float(np.median(values)) for name, values in times.items()}


def best(times: Mapping[str, Numbers]) -> dict[str, float]:
    """Takes the least over the rounds of each task."""
    return {name: float(np.min(values)) for name, values in times.items()}


class Column(NamedTuple):
    """One value of every row: `row[key] / unit`, or a text; empty in a row that has none."""

    head: str
    key: str
    form: str = ""
    unit: float = 1.0


def table(
    rows: Mapping[str, Mapping[str, Any]], columns: Sequence[Column], name: str = ""
) -> list[str]:
    """Lays out rows, each behind its name, under the heads of the columns; `name` heads names."""

    def cell(value: Any, column: Column) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return format(value / column.unit, column.form)

    head = [name, *(column.head for column in columns)]
    body = [[title, *(cell(row.get(c.key), c) for c in columns)] for title, row in rows.items()]
    return aligned([head, *body], left=1)
