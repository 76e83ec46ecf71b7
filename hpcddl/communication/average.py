"""Means over all learners of a communicator, in place."""

from collections.abc import Sequence

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from hpcddl.cluster.links import Links, links_of
from hpcddl.communication.compression import Compressor
from hpcddl.communication.exchange import ring_allreduce_bytes
from hpcddl.communication.messages import add_up, gather_shares
from hpcddl.communication.shares import Message, Shares


class Averager:
    """How a vector (d,) becomes its mean over the learners of `comm`, in place."""

    comm: MPI.Intracomm
    bytes_sent: int
    """By this learner in the last mean."""
    error: Tensor | None = None
    """(d,) what this learner's messages have left out so far, where that is kept."""

    def __call__(self, vector: Tensor) -> None:
        """Averages `vector`. Collective."""
        raise NotImplementedError


class Mean(Averager):
    """vector (d,) <- its mean over the learners, by one MPI allreduce; the same on all of them."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self._links = links_of(comm)
        self.bytes_sent = 0

    def __call__(self, vector: Tensor) -> None:
        self.add_up(vector)
        vector.div_(self.comm.size)

    def add_up(self, vector: Tensor) -> None:
        """vector (d,) <- the learners' sum, for callers that divide by n themselves."""
        self.bytes_sent = _add_up(self.comm, vector, self._links)


def average_aside(comm: MPI.Intracomm, vector: Tensor) -> None:
    """vector (d,) <- its mean over the learners of `comm`, for what is no part of training.

    Emulated links add nothing to it. Collective.
    """
    _add_up(comm, vector, Links())
    vector.div_(comm.size)


def _add_up(comm: MPI.Intracomm, vector: Tensor, links: Links) -> int:
    """vector (d,) <- the learners' sum; the bytes that each has sent for it."""
    host = vector.cpu()  # the vector itself when it is on the CPU
    bytes_sent = ring_allreduce_bytes(vector, comm.size)
    arrived = links.average(comm, bytes_sent)
    add_up(comm, host.numpy())
    arrived()
    if host is not vector:
        vector.copy_(host)
    return bytes_sent


class RoundedMean(Averager):
    """vector (d,) <- the mean of the learners' rounded vectors, rounded: it travels as `dtype`.

    It is added up in the vector's own type. All learners end with the same bits.
    """

    def __init__(self, comm: MPI.Intracomm, dtype: torch.dtype, size: int) -> None:
        self.dtype = dtype
        self._links = links_of(comm)
        self._shares = Shares(comm, size, dtype.itemsize)
        self.comm = comm
        self.bytes_sent = self._shares.bytes_sent

    def __call__(self, vector: Tensor) -> None:
        message = vector.to("cpu", self.dtype)
        arrived = self._links.average(self.comm, self.bytes_sent)
        parts = torch.from_numpy(self._shares.scatter(_bytes(message)).ravel()).view(self.dtype)
        total = torch.zeros(len(parts) // self.comm.size, dtype=vector.dtype)
        for part in parts.chunk(self.comm.size):
            total.add_(part)
        share = total.div_(self.comm.size).to(self.dtype)
        self._shares.gather(_bytes(share), _bytes(message))
        arrived()
        vector.copy_(message)


def _bytes(vector: Tensor) -> Message:
    """Views the same memory as whole numbers, because NumPy and MPI have no bfloat16."""
    return vector.view(torch.uint8).numpy()


class MajorityVote:
    """vector (d,) <- the sign that most learners' entries have, +1 or -1: one bit each way.

    Bernstein et al. 2018, alg. 3. A bit has no zero: sign(0) counts as +, and so does a tie.
    """

    def __init__(self, comm: MPI.Intracomm, size: int) -> None:
        self.comm = comm
        self._links = links_of(comm)
        self._shares = Shares(comm, -(-size // 8))
        self.bytes_sent = self._shares.bytes_sent
        """By this learner in a vote."""

    def __call__(self, vector: Tensor) -> None:
        ballot = np.packbits(vector.cpu().numpy() >= 0)
        arrived = self._links.average(self.comm, self.bytes_sent)
        votes = np.zeros(8 * self._shares.mine, np.uint16)
        for ballots in self._shares.scatter(ballot):
            votes += np.unpackbits(ballots)
        self._shares.gather(np.packbits(2 * votes >= self.comm.size), ballot)
        arrived()
        signs = torch.from_numpy(np.unpackbits(ballot, count=len(vector)))
        vector.copy_(signs).mul_(2).sub_(1)


class CompressedMean(Averager):
    """vector (d,) <- the mean over the learners of decoded(encoded(vector)).

    Every learner gathers all messages and adds up what they decode to in the order of the ranks,
    so that all end with the same bits. `sizes` are those of the tensors that make up the vector.
    With `error_feedback` each learner adds to its vector what its messages have left out so far:
    p_j = vector_j + e_j; e_j <- p_j - decoded(encoded(p_j)) (paper B alg. 4).
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        compressor: Compressor,
        sizes: Sequence[int],
        error_feedback: bool = False,
    ) -> None:
        self.comm = comm
        self._links = links_of(comm)
        self.compressor = compressor
        self.sizes = sizes
        self.error_feedback = error_feedback
        self._decoded: tuple[Tensor, Tensor] | None = None
        self.bytes_sent = 0  # its message to each of the n - 1 others

    def __call__(self, vector: Tensor) -> None:
        if self.error_feedback:
            if self.error is None:
                self.error = torch.zeros_like(vector)
            vector.add_(self.error)
            self.error.copy_(vector)
        sent = self.average(vector)
        if self.error is not None:
            self.error.sub_(sent)

    def average(self, vector: Tensor) -> Tensor:
        """Averages without memory; returns what this learner's own message decoded to (d,).

        It is valid until the next mean.
        """
        host = vector.cpu()
        message = self.compressor.encode(host, self.sizes)
        messages = np.empty((self.comm.size, len(message)), np.uint8)
        messages[self.comm.rank] = message
        self.bytes_sent = (self.comm.size - 1) * message.nbytes
        arrived = self._links.average(self.comm, self.bytes_sent)
        gather_shares(self.comm, messages.ravel(), [len(message)] * self.comm.size)
        arrived()
        if self._decoded is None:  # kept: new memory costs more than decoding
            self._decoded = torch.empty_like(host), torch.empty_like(host)
        own, other = self._decoded
        host.zero_()
        for rank, received in enumerate(messages):
            decoded = own if rank == self.comm.rank else other
            self.compressor.decode(received, self.sizes, decoded)
            host.add_(decoded)
        host.div_(self.comm.size)
        if host is not vector:
            vector.copy_(host)
        return own.to(vector.device)
