"""Messages of any size: in pieces they are what they are as a whole."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpi4py import MPI
from numpy.typing import NDArray
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication import messages
from hpcddl.communication.average import Mean
from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.communication.shares import Shares
from tests.mpi.test_strategies import OPTIMIZERS, all_weights, build, run

SMALL = 56  # bytes; weights of the cases below have 8 each


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "PIECE_BYTES", SMALL)


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 14, 100])
def test_pieces_are_views_of_all(size: int, small: None) -> None:
    vector = np.arange(float(size))
    cut = messages.pieces(vector)
    assert len(cut) >= 1
    assert all(part.nbytes <= SMALL and part.base is vector for part in cut)
    np.testing.assert_array_equal(np.concatenate(cut), vector)


CASES = [
    {"name": "dpsgd", "topology": {"name": "ring"}},
    {"name": "dpsgd", "topology": {"name": "full"}},
    {"name": "dpsgd", "topology": {"name": "ring"}, "exchange_dtype": "bfloat16"},
    {"name": "dpsgd", "topology": {"name": "ring"}, "super_learners": 2},
    {"name": "local_sgd", "steps": 2},
    {"name": "local_sgd", "steps": 2, "exchange_dtype": "float16"},
    {"name": "local_sgd", "steps": 2, "compression": "sign"},
    {"name": "local_sgd", "steps": 2, "compression": "uniform8"},
]


@pytest.mark.ranks(2, 4)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_strategies_end_with_the_same_weights(
    case: dict[str, Any], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bits: MPI may add up short vectors in another order."""

    def weights() -> NDArray[np.float64]:
        strategy = build(case, world, OPTIMIZERS["nesterov"], tmp_path)
        run(strategy)
        found: NDArray[np.float64] = all_weights(strategy)
        return found

    whole = weights()
    monkeypatch.setattr(messages, "PIECE_BYTES", SMALL)
    np.testing.assert_allclose(weights(), whole, rtol=1e-13, atol=1e-15)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("length", [3, 55, 500])
def test_shares_come_to_their_ranks_and_back(world: World, length: int, small: None) -> None:
    shares = Shares(world.comm, length)
    everyone = np.random.default_rng(0).integers(256, size=(world.size, length), dtype=np.uint8)
    message = everyone[world.rank].copy()
    ends = [length * k // world.size for k in range(world.size + 1)]
    mine = slice(*list(pairwise(ends))[world.rank])
    received = shares.scatter(message)
    np.testing.assert_array_equal(received, everyone[:, mine])
    shares.gather(received.max(0), message)
    np.testing.assert_array_equal(message, everyone.max(0))


@pytest.mark.ranks(1, 3)
def test_sums_and_broadcasts(world: World, small: None) -> None:
    mine = np.arange(60.0).reshape(3, 20) * (world.rank + 1)
    total = world.size * (world.size + 1) / 2
    added, on_zero, told = mine.copy(), mine.ravel().copy(), mine.copy()
    messages.add_up(world.comm, added)
    np.testing.assert_array_equal(added, total * np.arange(60.0).reshape(3, 20))
    messages.add_up_on_rank_zero(world.comm, on_zero)
    if world.rank == 0:
        np.testing.assert_array_equal(on_zero, total * np.arange(60.0))
    messages.broadcast(world.comm, told, world.size - 1)
    np.testing.assert_array_equal(told, world.size * np.arange(60.0).reshape(3, 20))


LARGE = 2**29 + 1  # float32: four bytes more than 2 GiB


@pytest.mark.slow
@pytest.mark.ranks(2)
@pytest.mark.parametrize("way", ["exchange", "half", "mean", "shares", "broadcast"])
def test_more_than_two_gib(world: World, way: str) -> None:
    """Real sizes, where a count of bytes overflows; 12 GiB of memory for both ranks."""
    text = Path("/proc/meminfo").read_text()
    free = int(re.search(r"MemAvailable: +(\d+) kB", text)[1])  # type: ignore[index]
    if not world.comm.bcast(free > 14 << 20):
        pytest.skip("needs 14 GiB of free memory")
    vector = torch.zeros(LARGE)
    vector[-3:] = vector[:3] = world.rank + 1.0
    if way in ("exchange", "half"):
        model = nn.Module()
        model.w = nn.Parameter(vector)
        exchange = NeighbourExchange(world.comm, FlatWeights(model))
        exchange.start(np.full((2, 2), 0.5))
        exchange.finish()
        assert exchange.bytes_sent == 4 * LARGE
        if way == "half":
            exchange.mix()
            other = vector
            assert other[[0, 2, -3, -1]].tolist() == [1.5] * 4
        else:
            other = exchange._received[0]
            assert other[[0, 2, -3, -1]].tolist() == [2.0 - world.rank] * 4
        assert other[3:-3].count_nonzero() == 0
    elif way == "mean":
        Mean(world.comm)(vector)
        assert vector[[0, 2, -3, -1]].tolist() == [1.5] * 4
    elif way == "shares":
        shares = Shares(world.comm, 4 * LARGE)
        received = shares.scatter(vector.view(torch.uint8).numpy())
        # Learner 0's share begins with the three numbers, learner 1's ends with them.
        at = slice(-4, None) if world.rank else slice(4)
        assert [part[at].view(np.float32).item() for part in received] == [1.0, 2.0]
        shares.gather(received[1].copy(), vector.view(torch.uint8).numpy())
        assert vector[[0, 2, -3, -1]].tolist() == [2.0] * 4
    else:
        messages.broadcast(world.comm, vector.numpy(), 1)
        assert vector[[0, 2, -3, -1]].tolist() == [2.0] * 4
    world.comm.Barrier()


def test_the_limit_is_below_what_mpi_counts() -> None:
    assert messages.PIECE_BYTES < 2**31
    assert MPI.INT.Get_size() == 4
