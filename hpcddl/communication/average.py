"""Means over all learners of a communicator, in place."""

from mpi4py import MPI
from torch import Tensor


class Mean:
    """vector (d,) <- its mean over the learners, by one MPI allreduce; the same on all of them."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm

    def __call__(self, vector: Tensor) -> None:
        host = vector.cpu()  # the vector itself when it is on the CPU
        self.comm.Allreduce(MPI.IN_PLACE, host.numpy(), MPI.SUM)
        host.div_(self.comm.size)
        if host is not vector:
            vector.copy_(host)
