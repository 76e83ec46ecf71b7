"""Horovod, started once in a process, on the learners' own communicator."""

from __future__ import annotations

import os
from functools import cache

import horovod.torch as hvd
from mpi4py import MPI

from hpcddl.world import World


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


@cache  # Horovod refuses to be told of the same set twice
def _process_sets(groups: tuple[tuple[int, ...], ...]) -> list[hvd.ProcessSet]:
    """One set per group; every learner must name all of them, in the same order."""
    return [hvd.add_process_set(group) for group in groups]
