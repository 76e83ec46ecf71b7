"""Identities of the local family (2, 3 and 4), in float64 on however many ranks were started."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI

from hpcddl.cluster.links import Links, put_links
from hpcddl.cluster.world import World
from tests.mpi.test_strategies import OPTIMIZERS, STEPS, all_weights, build, run

NESTEROV = OPTIMIZERS["nesterov"]


def ends_at(case: dict[str, Any], world: World, folder: Path, options: Any = NESTEROV) -> Any:
    strategy = build(case, world, options, folder)
    run(strategy)
    return all_weights(strategy)


def local(**options: Any) -> dict[str, Any]:
    return {"name": "local_sgd", **options}


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_local_step_is_ssgd(optimizer: str, world: World, tmp_path: Path) -> None:
    """Identity 2: averaging weights every step commutes with momentum, Nesterov and decay."""
    options = OPTIMIZERS[optimizer]
    one = ends_at(local(steps=1), world, tmp_path, options)
    np.testing.assert_allclose(
        one, ends_at({"name": "ssgd"}, world, tmp_path, options), rtol=0, atol=1e-13
    )


@pytest.mark.ranks(1, 2, 3, 4)
def test_blocks_that_average_once_are_local_sgd(world: World, tmp_path: Path) -> None:
    """Identity 3: H^b = 1; one block of all with period H; one learner per block with H * H^b."""
    same = np.testing.assert_allclose
    plain = {period: ends_at(local(steps=period), world, tmp_path) for period in (2, 6)}
    same(ends_at(local(steps=2, block_steps=1, block_size=2), world, tmp_path), plain[2])
    one_block = local(steps=2, block_steps=3, block_size=world.size)
    same(ends_at(one_block, world, tmp_path), plain[2], rtol=0, atol=1e-13)
    same(ends_at(local(steps=2, block_steps=3, block_size=1), world, tmp_path), plain[6])


@pytest.mark.ranks(1, 2, 3, 4)
def test_post_local_lies_between_local_and_mini_batch_sgd(world: World, tmp_path: Path) -> None:
    """Identity 4: switching at the start is local SGD, at the end mini-batch SGD."""
    at_start = ends_at(local(steps=3, after=1e-9), world, tmp_path)
    late = ends_at(local(steps=3, after=1), world, tmp_path)
    at_end = ends_at(local(steps=3, after=STEPS), world, tmp_path)
    np.testing.assert_array_equal(at_end, ends_at({"name": "ssgd"}, world, tmp_path))
    if world.size > 1:
        assert abs(late - at_end).max() > 1e-6
        assert abs(at_start - at_end).max() > 1e-6


@pytest.mark.ranks(1, 2, 3, 4)
def test_blocks_of_unequal_size_count_their_learners(world: World, tmp_path: Path) -> None:
    """The average over all is of learners, not of blocks: three in blocks of two and one."""
    strategy = build(local(steps=1, block_steps=2, block_size=2), world, {}, tmp_path)
    run(strategy, last=1)
    before = all_weights(strategy)
    run(strategy, first=1, last=2)
    after = all_weights(strategy)
    assert (after == after[0]).all()
    assert not world.size > 2 or abs(before - before[0]).max() > 0


@pytest.mark.ranks(1, 2, 3, 4)
def test_messages_are_counted(world: World, tmp_path: Path) -> None:
    """Every second step a ring allreduce of the weights; nothing in between."""
    strategy = build(local(steps=2), world, {}, tmp_path)
    sent = []
    for step in range(STEPS):
        run(strategy, first=step, last=step + 1)
        sent.append(strategy.traffic.bytes_sent)
    once = round(2 * (world.size - 1) / world.size * 8 * strategy.weights.size)
    assert sent == [0, once, once, 2 * once, 2 * once, 3 * once, 3 * once]
    assert strategy.traffic.rounds == 3


class Counting(Links):
    """The real links, which remember who averages."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.averages: list[str] = []

    def average(self, comm: Any, bytes_sent: int) -> Any:
        self.averages.append("all" if comm is self.comm else "block")
        return super().average(comm, bytes_sent)


@pytest.mark.ranks(1, 2, 3, 4)
# The same examples on all ranks: they must meet in each average.
@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(steps=st.integers(1, 4), block_steps=st.integers(1, 4), size=st.integers(1, 4))
def test_blocks_average_every_h_steps_and_all_every_h_times_h_b(
    steps: int, block_steps: int, size: int, world: World
) -> None:
    """Paper B app. D, E: T/H averages; T/(H H^b) of them are of all, instead of the block's."""
    comm = world.comm.Dup()
    links = Counting(comm)
    put_links(comm, links)
    counted = replace(world, comm=comm)
    case = local(steps=steps, block_steps=block_steps, block_size=size)
    strategy = build(case, counted, {}, Path())
    for step in range(2 * STEPS):
        run(strategy, first=step, last=step + 1)
        rounds, rest = divmod(step + 1, steps)
        expected = [] if rest else ["block" if rounds % block_steps else "all"]
        assert links.averages == expected
        links.averages.clear()
