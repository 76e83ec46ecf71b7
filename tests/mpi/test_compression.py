"""Compressed averages: EF-signSGD's identities (6), and what travels, on however many ranks."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddl.cluster.world import World
from hpcddl.communication.average import CompressedMean
from hpcddl.communication.compression import COMPRESSORS, Compressor
from tests.mpi.dense import CUTS, gradient, network, scaled_signs, vector_of
from tests.mpi.test_strategies import (
    OPTIMIZERS,
    STEPS,
    all_weights,
    batch,
    build,
    rate,
    run,
)

NAMES = [name for name in COMPRESSORS if name != "none"]
SIZES = [3, 1, 17, 64]


class Recorded(MPI.Intracomm):
    """A communicator that remembers the buffers handed to it."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.lengths: list[tuple[int, int]] = []

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        self.lengths.append((recvbuf[1][self.rank], recvbuf[0].nbytes))
        super().Allgatherv(sendbuf, recvbuf)


def compressor(name: str) -> Compressor:
    made = COMPRESSORS[name]()
    assert made is not None
    return made


def vectors(world: World, dtype: torch.dtype) -> list[torch.Tensor]:
    """Every learner's vector, on every learner."""
    random = np.random.default_rng(2)
    drawn = random.normal(size=(world.size, sum(SIZES)))
    drawn[:, 5] = 0
    return [torch.from_numpy(row).to(dtype) for row in drawn]


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_of_what_was_decoded(name: str, dtype: torch.dtype, world: World) -> None:
    """The same bits on all learners, each of whom knows what it has said."""
    used, everyones = compressor(name), vectors(world, dtype)
    decoded = []
    for vector in everyones:
        out = torch.empty_like(vector)
        used.decode(used.encode(vector, SIZES), SIZES, out)
        decoded.append(out)
    vector = everyones[world.rank]
    sent = CompressedMean(world.comm, used, SIZES).average(vector)
    assert torch.equal(sent, decoded[world.rank])
    torch.testing.assert_close(vector, torch.stack(decoded).mean(0))
    assert len(set(world.comm.allgather(vector.numpy().tobytes()))) == 1


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_are_those_handed_to_mpi(dtype: torch.dtype, world: World) -> None:
    """Sign: a scale and ceil(size / 8) bytes per tensor, to each of the n - 1 others."""
    comm = Recorded(world.comm)
    mean = CompressedMean(comm, compressor("sign"), SIZES)
    mean(vectors(world, dtype)[world.rank])
    length = len(SIZES) * dtype.itemsize + 1 + 1 + 3 + 8
    assert comm.lengths == [(length, world.size * length)]
    assert mean.bytes_sent == (world.size - 1) * length


@pytest.mark.ranks(2, 3)
def test_a_strategy_counts_its_messages(world: World, tmp_path: Path) -> None:
    """Post-local: one message at each step of the first phase, then one every H steps."""
    case = {"name": "local_sgd", "steps": 2, "after": 3, "compression": "sign"}
    strategy = build(case, world, {}, tmp_path)
    sent = []
    for step in range(STEPS):
        run(strategy, first=step, last=step + 1)
        sent.append(strategy.traffic.bytes_sent)
    once = (world.size - 1) * (4 * 8 + 3 + 1 + 2 + 1)
    assert sent == [once * count for count in (1, 2, 3, 3, 4, 4, 5)]


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_with_error_feedback(name: str, world: World, tmp_path: Path) -> None:
    """Identity 6: sum of applied updates + mean error = sum of true updates."""
    case = {"name": "local_sgd", "steps": 2, "compression": name}
    strategy = build(case, world, OPTIMIZERS["nesterov"], tmp_path)
    start, true = vector_of(strategy.model), 0.0
    for step in range(0, 6, 2):
        # What the learner would hold without the average: the same steps on a copy of its state.
        alone = build({**case, "steps": 99}, world, OPTIMIZERS["nesterov"], tmp_path)
        alone.load_state_dict(copy.deepcopy(strategy.state_dict()))
        anchor = vector_of(strategy.model)
        run(alone, first=step, last=step + 2)
        run(strategy, first=step, last=step + 2)
        true = true + np.mean(world.comm.allgather(anchor - vector_of(alone.model)), axis=0)
    errors = world.comm.allgather(strategy.state_dict()["error"].numpy())
    applied = start - vector_of(strategy.model)
    np.testing.assert_allclose(applied + np.mean(errors, axis=0), true, rtol=0, atol=1e-14)
    assert np.abs(errors).max() > 1e-5


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("name", NAMES)
def test_learners_agree_bit_for_bit(name: str, world: World, tmp_path: Path) -> None:
    case = {"name": "local_sgd", "steps": 2, "compression": name, "momentum": 0.5}
    strategy = build(case, world, {"momentum": 0.9}, tmp_path)
    run(strategy, last=6)
    weights = all_weights(strategy)
    assert (weights == weights[0]).all()


@pytest.mark.ranks(1)
def test_one_learner_is_error_feedback_sgd(world: World, tmp_path: Path) -> None:
    """Identity 6: Karimireddy et al. 2019 alg. 1, p = gamma g + e; w -= C(p); e = p - C(p)."""
    alone = World(world.comm.Split(world.rank), world.comm.Split(world.rank), world.device)
    strategy = build({"name": "local_sgd", "steps": 1, "compression": "sign"}, alone, {}, tmp_path)
    run(strategy)
    w, e = vector_of(network()), np.zeros(1)
    for step in range(STEPS):
        p = rate(step) * gradient(w, *batch(step, 0)) + e
        w = w - scaled_signs(p)
        e = p - scaled_signs(p)
    np.testing.assert_allclose(vector_of(strategy.model), w, rtol=0, atol=1e-14)
    assert len(np.split(w, CUTS)) == len(strategy.weights.sizes)
