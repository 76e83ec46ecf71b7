"""Reduce-scatter and allgather of bytes: how learners add up what MPI has no sum for.

Learner k gets the k-th share of everyone's message, combines them, and tells all what came out. As
in a ring allreduce each learner sends 2 (n-1)/n of a message, whatever n is.
"""

from itertools import pairwise

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from hpcddl.communication.messages import gather_shares, scatter_shares

Message = NDArray[np.uint8]


class Shares:
    """Messages of `length` units of `unit` bytes, cut between units."""

    def __init__(self, comm: MPI.Intracomm, length: int, unit: int = 1) -> None:
        self.comm = comm
        ends = [length * k // comm.size * unit for k in range(comm.size + 1)]
        self._ends = ends[1:]
        self._bytes = [end - begin for begin, end in pairwise(ends)]
        self.mine = self._bytes[comm.rank]
        """Bytes of this learner's share."""
        self.bytes_sent = length * unit + (comm.size - 2) * self.mine
        """By this learner, to the others, in one `scatter` and one `gather`."""

    def scatter(self, message: Message) -> Message:
        """(n, mine) this learner's share of every learner's message."""
        return scatter_shares(self.comm, message, self._bytes)

    def gather(self, share: Message, message: Message) -> None:
        """message <- every learner's `share` (mine,), in order."""
        end = self._ends[self.comm.rank]
        message[end - self.mine : end] = share
        gather_shares(self.comm, message, self._bytes)
