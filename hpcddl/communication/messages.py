"""Messages of any size: MPI counts in 31 bits, so longer ones travel in pieces.

Pieces are sums of the same numbers in the same order, and messages between two ranks stay in order,
so that nobody can tell a vector in pieces from a whole one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

PIECE_BYTES = 1 << 30
_TAG = 2  # of shares; weights have 0, and their emulated times 1


def pieces(vector: Any) -> list[Any]:
    """Cuts a vector (d,), a tensor or an array, into views of at most PIECE_BYTES, at least one."""
    count = max(1, PIECE_BYTES // vector.itemsize)
    return [vector[begin : begin + count] for begin in range(0, max(1, len(vector)), count)]


def broadcast(comm: MPI.Intracomm, array: Any, root: int = 0) -> None:
    """Overwrites `array`, of any shape and contiguous, with that of rank `root`. Collective."""
    for piece in pieces(array.reshape(-1)):
        comm.Bcast(piece, root=root)


def add_up(comm: MPI.Intracomm, array: NDArray) -> None:
    """Overwrites `array`, of any shape and contiguous, with its sum over the ranks. Collective."""
    for piece in pieces(array.reshape(-1)):
        comm.Allreduce(MPI.IN_PLACE, piece, MPI.SUM)


def add_up_on_rank_zero(comm: MPI.Intracomm, array: NDArray) -> None:
    """Overwrites `array` (d,) with its sum over the ranks, on rank 0. Collective."""
    for piece in pieces(array):
        comm.Reduce(MPI.IN_PLACE if comm.rank == 0 else piece, piece if comm.rank == 0 else None)


def gather_shares(comm: MPI.Intracomm, whole: Any, lengths: list[int]) -> None:
    """Brings together all ranks' shares of the bytes `whole` (b,), each in its place. Collective.

    Args:
        whole: an array or a tensor of bytes.
        lengths: of each rank's share, in bytes; the shares follow each other in `whole`.
    """
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    begins = [end - length for end, length in zip(ends, lengths, strict=True)]
    if ends[-1] <= PIECE_BYTES:
        comm.Allgatherv(MPI.IN_PLACE, [whole, lengths, begins, MPI.BYTE])
        return
    for owner, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        broadcast(comm, whole[begin:end], owner)


def scatter_shares(
    comm: MPI.Intracomm, whole: NDArray[np.uint8], lengths: list[int]
) -> NDArray[np.uint8]:
    """Brings each rank its share of every rank's bytes `whole` (b,): (n, its length). Collective.

    Args:
        lengths: of each rank's share, in bytes; the shares follow each other in `whole`.
    """
    n, mine = comm.size, lengths[comm.rank]
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    begins = [end - length for end, length in zip(ends, lengths, strict=True)]
    received = np.empty((n, mine), np.uint8)
    if n * max(lengths) <= PIECE_BYTES:
        comm.Alltoallv([whole, lengths, begins, MPI.BYTE], [received, mine, MPI.BYTE])
        return received
    requests = [comm.Irecv(part, k, _TAG) for k in range(n) for part in pieces(received[k])]
    for k, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        requests += [comm.Isend(part, k, _TAG) for part in pieces(whole[begin:end])]
    MPI.Request.Waitall(requests)
    return received
