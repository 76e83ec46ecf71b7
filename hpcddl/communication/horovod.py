"""Horovod, started once in a process, on the learners' own communicator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cache
from typing import Annotated

import horovod.torch as hvd
from mpi4py import MPI
from pydantic import Field

from hpcddl.cluster import mpi_start
from hpcddl.cluster.world import World

FusionMib = Annotated[int, Field(ge=0, le=1024)]
"""MiB of small tensors reduced as one. Horovod allocates as much; its own default is 128."""
_PAUSE_SECONDS = 2e-4  # between two looks at whether a sum is done
_WATCH_SECONDS = 1.0  # between two looks at whether Horovod's thread still runs
_threads: set[int] = set()  # of Horovod in this process, as Linux numbers them


def start(world: World, fusion_mib: int, group: MPI.Intracomm | None = None) -> hvd.ProcessSet:
    """Starts Horovod unless it runs; who averages: the learners of `group`, or all. Collective.

    Args:
        fusion_mib: MiB of small tensors reduced as one; 0 reduces each by itself, in an order that
            does not depend on timing. The first start decides.
        group: this learner's part of a partition of all learners.
    """
    os.environ["HOROVOD_FUSION_THRESHOLD"] = str(fusion_mib << 20)
    if group is None or group.size == world.size:
        _init(world)
        return hvd.global_process_set
    groups = sorted(set(world.comm.allgather(tuple(group.allgather(world.rank)))))
    os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    _init(world)
    return next(one for one in _process_sets(tuple(groups)) if world.rank in one.ranks)


def finish(handles: Iterable[int]) -> None:
    """Waits for the operations that `handles` stand for.

    Horovod waits by calling sched_yield over and over. Where ranks share cores that takes turns
    from the ranks that it waits for; on Linux 6.18 they then get none for up to a minute. So there
    this rank sleeps between two looks. Nor does Horovod's wait ever end once its thread has.

    Raises:
        RuntimeError: the thread has ended by an error, which it has printed.
    """
    pause = _PAUSE_SECONDS if mpi_start.waits_politely(os.environ) else 0.0
    looked = time.monotonic()
    for handle in handles:
        while not hvd.poll(handle):
            time.sleep(pause)
            if time.monotonic() - looked > _WATCH_SECONDS:
                looked = time.monotonic()
                if not _threads <= _running():
                    raise RuntimeError(
                        "Horovod's thread has ended by the error that it has printed above, and "
                        "averages no more; fix, if memory was short: a smaller fusion_mib"
                    )
        hvd.synchronize(handle)


def _init(world: World) -> None:
    """Starts Horovod unless it runs, and notes its thread."""
    if hvd.is_initialized():
        return
    before = _running()
    hvd.init(comm=world.comm)
    _threads.update(_running() - before)


def _running() -> set[int]:
    """The threads of this process, as Linux numbers them."""
    return set(map(int, os.listdir("/proc/self/task")))


@cache  # Horovod refuses to be told of the same set twice
def _process_sets(groups: tuple[tuple[int, ...], ...]) -> list[hvd.ProcessSet]:
    """One set per group; every learner must name all of them, in the same order."""
    return [hvd.add_process_set(group) for group in groups]
