"""The block order's laws for all sizes: disjoint, equal, resumable, mixed as well as promised."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.data.block_order import (
    BlockShuffle,
    Ranges,
    block_batches,
    buffered_batches,
    learner_part,
)
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.shards import open_split


def batches(
    shards: list[int], block: int, buffer: int, *, rank: int = 0, ranks: int = 1, batch: int = 1
) -> list[NDArray]:
    """The batches of one learner in epoch 1 of seed 2."""
    shuffle = BlockShuffle(block, buffer)
    ends = np.cumsum(shards)
    return list(block_batches(ends, shuffle, 2, 1, rank=rank, ranks=ranks, batch=batch)[1])


shards_of = st.lists(st.integers(1, 90), min_size=1, max_size=6)


@settings(deadline=None)
@given(
    shards_of,
    st.integers(1, 120),
    st.integers(0, 300),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_an_epoch_is_disjoint_and_equal(shards, block, buffer, ranks, batch):
    """Every learner takes N // nB batches of B; no sample twice; fewer than nB are left out."""
    samples = sum(shards)
    if samples < ranks * batch:
        with pytest.raises(UserError, match="global_batch="):
            batches(shards, block, buffer, ranks=ranks, batch=batch)
        return
    parts = [
        batches(shards, block, buffer, rank=rank, ranks=ranks, batch=batch) for rank in range(ranks)
    ]
    assert {len(part) for part in parts} == {samples // (ranks * batch)}
    assert all(len(indices) == batch for part in parts for indices in part)
    taken = np.concatenate([indices for part in parts for indices in part])
    assert taken.min() >= 0
    assert taken.max() < samples
    assert len(np.unique(taken)) == len(taken) > samples - ranks * batch


@settings(deadline=None)
@given(shards_of, st.integers(1, 120), st.integers(1, 3), st.integers(1, 5))
def test_the_parts_are_the_permuted_blocks(shards, block, ranks, batch):
    """Blocks are whole, inside one shard, and in one order for all learners, cut at any sample."""
    ends = np.cumsum(shards)
    whole = learner_part(ends, block, 0, 0, rank=0, ranks=1, batch=1)
    assert sorted(whole) == [
        (first, min(block, end - first))
        for end, size in zip(ends.tolist(), shards, strict=True)
        for first in range(end - size, end, block)
    ]
    everything = whole.samples(0, len(whole))
    assert everything.tolist() == [i for first, n in whole for i in range(first, first + n)]
    if sum(shards) >= ranks * batch:
        parts = [
            learner_part(ends, block, 0, 0, rank=j, ranks=ranks, batch=batch) for j in range(ranks)
        ]
        joined = np.concatenate([part.samples(0, len(part)) for part in parts])
        assert np.array_equal(joined, everything[: len(joined)])


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)), min_size=1, max_size=8), st.data()
)
def test_a_part_of_a_sequence(ranges, data):
    """Cutting ranges equals cutting the array of their samples."""
    firsts, counts = (np.array(column) for column in zip(*ranges, strict=True))
    sequence = Ranges(firsts, counts)
    samples = np.concatenate([np.arange(a, a + n) for a, n in ranges])
    begin = data.draw(st.integers(0, len(samples)))
    end = data.draw(st.integers(begin, len(samples)))
    part = sequence.part(begin, end)
    assert len(part) == end - begin
    assert np.array_equal(part.samples(0, len(part)), samples[begin:end])
    assert len(sequence) == len(samples)  # the whole is not cut with it


@pytest.mark.parametrize("buffer", [0, 1, 5])
def test_a_buffer_of_one_batch_gives_the_blocks(buffer):
    """Nothing is mixed: each batch is the next samples of the permuted blocks."""
    part = learner_part(np.array([40, 77]), 8, 2, 1, rank=0, ranks=1, batch=5)
    got = batches([40, 37], 8, buffer, batch=5)
    for step, indices in enumerate(got):
        want = part.samples(5 * step, 5 * step + 5)
        assert np.array_equal(np.sort(indices), np.sort(want))


def test_samples_enter_the_buffer_in_order():
    """At step t only the first K + tB samples of the sequence can have been drawn."""
    part = learner_part(np.array([700]), 10, 2, 1, rank=0, ranks=1, batch=7)
    place = np.empty(700, int)
    place[part.samples(0, 700)] = np.arange(700)
    for step, indices in enumerate(batches([700], 10, 70, batch=7)):
        assert place[indices].max() < 70 + 7 * step + 7


@pytest.mark.parametrize(("block", "buffer"), [(1, 1000), (250, 1000), (1, 64)])
def test_a_full_shuffle_is_uniform(block, buffer):
    """Any sample lands in any tenth of the epoch: chi square of 10 x 10 cells, 81 degrees.

    Also for blocks of one sample and a small buffer: the blocks' permutation alone is uniform.
    """
    table = np.zeros((10, 10))
    for seed in range(60):
        part = learner_part(np.array([1000]), block, seed, 0, rank=0, ranks=1, batch=20)
        shuffle = BlockShuffle(block, buffer)
        order = np.concatenate(
            list(buffered_batches(part, shuffle, np.random.default_rng(seed), batch=20))
        )
        np.add.at(table, (np.arange(1000) // 100, order // 100), 1)
    chi_square = ((table - 600) ** 2 / 600).sum()
    assert chi_square < 125  # 1 in 1000 would be above, were samples independent


def test_a_small_buffer_is_no_full_shuffle():
    """The check above can fail: whole blocks and a small buffer leave samples where they were."""
    order = np.concatenate(batches([1000], 250, 20, batch=20))
    assert np.abs(np.diff(order)).mean() < 50


def test_epochs_and_learners_differ():
    ends = np.array([4000])
    orders = {
        learner_part(ends, 10, seed, epoch, rank=rank, ranks=2, batch=4).samples(0, 50).tobytes()
        for seed, epoch, rank in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    }
    assert len(orders) == 4


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("first_step", [0, 1, 4, 5])
def test_resuming_gives_the_rest_of_the_epoch(make, rank, first_step):
    """The data set's own order, with its read-ahead: starting at step t drops t batches."""
    split = open_split(make().folder, "train", shuffle=BlockShuffle(6, 9))
    key = {"rank": rank, "ranks": 3, "batch": 3}
    whole = list(split.order(0, 1, **key))
    rest = list(split.order(0, 1, **key, first_step=first_step))
    assert len(whole) == 5
    assert len(rest) == 5 - first_step
    assert all(map(np.array_equal, rest, whole[first_step:]))


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_the_order_does_not_depend_on_prefetching(make, depth):
    """Nor do the batches: sample i of the split is row i of what was packed."""
    made = make()
    split = open_split(made.folder, "train", shuffle=BlockShuffle(8, 16))
    key = {"rank": 0, "ranks": 1, "batch": 5}
    wanted = [np.sort(indices) for indices in split.order(3, 0, **key)]
    loader = Prefetcher(split, "cpu", depth)
    got = [features.clone() for features, _ in loader.batches(split.order(3, 0, **key))]
    assert len(got) == len(wanted) == 10
    for features, indices in zip(got, wanted, strict=True):
        assert np.array_equal(features.numpy(), made.features[indices])


def test_skipping_to_a_step_is_cheap():
    """117 thousand steps of an epoch of 30 million samples hold no more than the buffer."""
    ends = np.arange(1, 459) * 65536
    _, steps = block_batches(ends, BlockShuffle(), 0, 0, rank=0, ranks=4, batch=64)
    assert len(next(islice(steps, 20_000, None))) == 64
