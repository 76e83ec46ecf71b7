"""The communicators of a job: the only place that touches COMM_WORLD."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

from hpcddl.cluster.links import split


def join(node_size: int | None = None) -> tuple[MPI.Intracomm, MPI.Intracomm]:
    """All ranks, and those of this node. Collective.

    Args:
        node_size: fakes nodes of that many consecutive ranks (tests on one machine).
    """
    comm = MPI.COMM_WORLD.Dup()
    if node_size is not None:
        return comm, split(comm, comm.rank // node_size)
    node: Any = comm.Split_type(MPI.COMM_TYPE_SHARED)  # a plain communicator to mpi4py's types
    return comm, node
