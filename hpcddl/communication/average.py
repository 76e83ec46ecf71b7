"""Means over all learners of a communicator, in place."""

from typing import Protocol

from mpi4py import MPI
from torch import Tensor


class Average(Protocol):
    """vector (d,) <- its mean over the learners, in place, the same on every learner."""

    def __call__(self, vector: Tensor) -> None: ...


class Mean:
    """The exact mean, by one MPI allreduce (through host memory for a GPU vector)."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm

    def __call__(self, vector: Tensor) -> None:
        host = vector.cpu()  # the vector itself when it is on the CPU
        self.comm.Allreduce(MPI.IN_PLACE, host.numpy(), MPI.SUM)
        host.div_(self.comm.size)
        if host is not vector:
            vector.copy_(host)
