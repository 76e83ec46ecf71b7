"""Means over all learners of a communicator, in place."""

from collections.abc import Sequence

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from hpcddl.communication.compression import Compressor


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


class CompressedMean:
    """vector (d,) <- the mean over the learners of decoded(encoded(vector)).

    Every learner gathers all messages and adds up what they decode to in the order of the ranks,
    so that all end with the same bits. `sizes` are those of the tensors that make up the vector.
    """

    def __init__(self, comm: MPI.Intracomm, compressor: Compressor, sizes: Sequence[int]) -> None:
        self.comm = comm
        self.compressor = compressor
        self.sizes = sizes
        self.bytes_sent = 0
        """By this learner in the last mean: its message to each of the n - 1 others."""

    def __call__(self, vector: Tensor) -> Tensor:
        """Returns what this learner's own message decoded to (d,), for error feedback."""
        host = vector.cpu()
        message = self.compressor.encode(host, self.sizes)
        messages = np.empty((self.comm.size, len(message)), np.uint8)
        self.comm.Allgather(message, messages)
        self.bytes_sent = (self.comm.size - 1) * message.nbytes
        own, other = torch.empty_like(host), torch.empty_like(host)
        host.zero_()
        for rank, received in enumerate(messages):
            decoded = own if rank == self.comm.rank else other
            self.compressor.decode(received, self.sizes, decoded)
            host.add_(decoded)
        host.div_(self.comm.size)
        if host is not vector:
            vector.copy_(host)
        return own.to(vector.device)
