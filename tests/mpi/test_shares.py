"""Averages that MPI has no sum for: 16-bit numbers and votes, on however many ranks."""

from typing import Any

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddl.cluster.world import World
from hpcddl.communication.average import MajorityVote, RoundedMean
from hpcddl.communication.shares import Shares

SIZES = [1, 2, 3, 8, 39, 1000]


def vectors(world: World, size: int, dtype: torch.dtype) -> torch.Tensor:
    """(n, size) every learner's vector, on every learner; some entries are 0."""
    drawn = np.random.default_rng(size).normal(size=(world.size, size))
    drawn[:, ::5] = 0
    return torch.from_numpy(drawn).to(dtype)


def same_on_all(world: World, vector: torch.Tensor) -> bool:
    return len(set(world.comm.allgather(vector.numpy().tobytes()))) == 1


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("travels", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rounded_mean(dtype: torch.dtype, travels: torch.dtype, size: int, world: World) -> None:
    """The mean of rounded vectors, added up in their own type, rounded; the same bits on all."""
    everyones = vectors(world, size, dtype)
    vector = everyones[world.rank].clone()
    RoundedMean(world.comm, travels, size)(vector)
    total = torch.zeros(size, dtype=dtype)
    for one in everyones:
        total += one.to(travels)
    assert torch.equal(vector, (total / world.size).to(travels).to(dtype))
    assert same_on_all(world, vector)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("size", SIZES)
def test_a_majority_vote(size: int, world: World) -> None:
    """The sign of the sum of signs; sign(0) is +, and so is a tie."""
    everyones = vectors(world, size, torch.float32)
    vector = everyones[world.rank].clone()
    MajorityVote(world.comm, size)(vector)
    votes = np.where(everyones.numpy() >= 0, 1, -1).sum(0)
    np.testing.assert_array_equal(vector, np.where(votes >= 0, 1, -1))
    assert same_on_all(world, vector)


class Recorded(MPI.Intracomm):
    """A communicator that counts what leaves this learner."""

    sent = 0

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        self.sent += sum(n for rank, n in enumerate(sendbuf[1]) if rank != self.rank)
        super().Alltoallv(sendbuf, recvbuf)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        self.sent += (self.size - 1) * recvbuf[1][self.rank]
        super().Allgatherv(sendbuf, recvbuf)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("size", SIZES)
def test_bytes_are_those_handed_to_mpi(size: int, world: World) -> None:
    """A vote is one bit per entry each way: 2 (n-1)/n of the packed vector, to a byte per share."""
    comm = Recorded(world.comm)
    vote = MajorityVote(comm, size)
    vote(vectors(world, size, torch.float32)[world.rank])
    assert comm.sent == vote.bytes_sent
    packed = -(-size // 8)
    assert abs(vote.bytes_sent - 2 * (world.size - 1) / world.size * packed) < world.size
    comm = Recorded(world.comm)
    mean = RoundedMean(comm, torch.bfloat16, size)
    mean(vectors(world, size, torch.float32)[world.rank])
    assert comm.sent == mean.bytes_sent


@pytest.mark.ranks(1, 2, 3, 4)
def test_shares_cut_between_units(world: World) -> None:
    """No 16-bit number is torn in two."""
    for length in range(20):
        assert Shares(world.comm, length, 2).mine % 2 == 0
