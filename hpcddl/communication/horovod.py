"""Horovod, started once in a process, on the learners' own communicator."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cache

import horovod.torch as hvd
from mpi4py import MPI

from hpcddl.cluster import mpi_start
from hpcddl.cluster.world import World

_PAUSE_SECONDS = 2e-4  # between two looks at whether a sum is done


def start(world: World, fusion_mib: int, group: MPI.Intracomm | None = None) -> hvd.ProcessSet:
    """Starts Horovod unless it runs; who averages: the learners of `group`, or all. Collective.

    Args:
        fusion_mib: MiB of small tensors reduced as one; 0 reduces each by itself, in an order that
            does not depend on timing. The first start decides.
        group: this learner's part of a partition of all learners.
    """
    os.environ["HOROVOD_FUSION_THRESHOLD"] = str(fusion_mib << 20)
    if group is None or group.size == world.size:
        hvd.init(comm=world.comm)
        return hvd.global_process_set
    groups = sorted(set(world.comm.allgather(tuple(group.allgather(world.rank)))))
    os.environ["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
    hvd.init(comm=world.comm)
    return next(one for one in _process_sets(tuple(groups)) if world.rank in one.ranks)


def finish(handles: Iterable[int]) -> None:
    """Waits for the operations that `handles` stand for.

    Horovod waits by calling sched_yield over and over. Where ranks share cores that takes turns
    from the ranks that it waits for; on Linux 6.18 they then get none for up to a minute. So there
    this rank sleeps between two looks.
    """
    polite = mpi_start.waits_politely(os.environ)
    for handle in handles:
        while polite and not hvd.poll(handle):
            time.sleep(_PAUSE_SECONDS)
        hvd.synchronize(handle)


@cache  # Horovod refuses to be told of the same set twice
def _process_sets(groups: tuple[tuple[int, ...], ...]) -> list[hvd.ProcessSet]:
    """One set per group; every learner must name all of them, in the same order."""
    return [hvd.add_process_set(group) for group in groups]
