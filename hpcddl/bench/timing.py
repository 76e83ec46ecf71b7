"""Times of tasks that compete for one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


def interleaved(tasks: Mapping[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    """Best seconds of each task; in turns, so that a slow moment of the machine meets them all.

    A task is called with the number of the repeat; 0 warms page cache, page tables and buffers.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for name in tasks:
        tasks[name](0)
    for repeat in range(1, repeats + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task(repeat)
            seconds[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in seconds.items()}


def slowest(comm: Intracomm, work: Callable[[], object]) -> float:
    """Seconds of `work` on the rank that takes longest; all begin together."""
    comm.Barrier()
    began = time.perf_counter()
    work()
    return max(comm.allgather(time.perf_counter() - began))
