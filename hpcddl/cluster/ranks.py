"""The communicators of a job: the only place that touches COMM_WORLD."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI


def join(node_size: int | None = None) -> tuple[MPI.Intracomm, MPI.Intracomm]:
    """All ranks, and those of this node. Collective.

    Args:
        node_size: fakes nodes of that many consecutive ranks (tests on one machine).
    """
    comm = MPI.COMM_WORLD.Dup()
    # mpi4py's own types call both of these plain communicators.
    node: Any = (
        comm.Split_type(MPI.COMM_TYPE_SHARED)
        if node_size is None
        else comm.Split(comm.rank // node_size)
    )
    return comm, node
