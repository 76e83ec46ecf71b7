"""Describes what a run runs on, in the first two lines of its log; see `hpcddl doctor`."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from importlib import metadata

import torch
from mpi4py import MPI

import hpcddl
from hpcddl.cluster.cores import cores_of_rank
from hpcddl.cluster.world import World
from hpcddl.common.ranges import ranges


def describe_setting(world: World) -> list[str]:
    """The libraries, and where the ranks are; the same text on every rank. Collective."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    neighbours = world.node.allgather(cores)
    own = float(cores_of_rank(cores, neighbours))
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    # By the node's first rank, so that two nodes of one name stay two.
    places = world.comm.allgather((world.node.bcast(world.rank), device, own))
    nodes = Counter(node for node, _, _ in places)
    counts = sorted(set(nodes.values()))
    ranks = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    devices = ", ".join(sorted({device for _, device, _ in places}))
    least = min(own for _, _, own in places)
    bound = f"bound to {ranges(cores)} (rank 0)" if len(set(neighbours)) > 1 else "not bound"
    lines = [
        ", ".join(_libraries()),
        f"nodes x ranks: {len(nodes)} x {ranks}, on {devices}; each rank: threads "
        f"{torch.get_num_threads()}, cores {least:.3g}, {bound}",
    ]
    return world.comm.bcast(lines)


def _libraries() -> list[str]:
    mpi = MPI.Get_library_version().partition(",")[0].partition("\n")[0].strip("\0 ")
    level = "" if MPI.Query_thread() >= MPI.THREAD_MULTIPLE else " without THREAD_MULTIPLE"
    found = [
        f"hpcddl {hpcddl.__version__}",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"{mpi}{level}",
    ]
    # Only an algorithm that uses Horovod has loaded it by now.
    horovod = sys.modules.get("horovod.torch")
    if horovod:
        operations = "MPI and NCCL" if horovod.nccl_built() else "MPI"
        found.append(f"Horovod {metadata.version('horovod')} ({operations})")
    return found
