"""The sampler's laws for all sizes: disjoint, at most once, the same global batch for any n."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcddl.common.errors import UserError
from hpcddl.data.block_order import BlockShuffle, block_batches
from hpcddl.data.sampler import (
    contiguous_batches,
    epoch_permutation,
    kept_permutation,
    rank_batches,
    rank_slice,
    shared_order,
    steps_per_epoch,
)

ranks_of = st.integers(1, 9)
batches_of = st.integers(1, 17)


@given(st.integers(0, 2000), st.integers(0, 5), st.integers(0, 5))
def test_permutation_holds_each_sample_once(samples, seed, epoch):
    order = epoch_permutation(samples, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, epoch_permutation(samples, seed, epoch))
    assert order.dtype == np.uint32


def test_permutation_depends_on_seed_and_epoch():
    """Three different orders: an epoch is not another seed's epoch."""
    orders = {epoch_permutation(100, *key).tobytes() for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(orders) == 4


@given(ranks_of, batches_of, st.integers(0, 300), st.integers(0, 3))
def test_an_epoch_is_disjoint_and_equal(ranks, batch, more, epoch):
    """Every learner takes N // nB batches of B; no sample twice; fewer than nB are left out."""
    samples = ranks * batch + more
    order = epoch_permutation(samples, 0, epoch)
    parts = [list(rank_batches(order, rank=j, ranks=ranks, batch=batch)) for j in range(ranks)]
    assert {len(part) for part in parts} == {samples // (ranks * batch)}
    assert all(len(indices) == batch for part in parts for indices in part)
    taken = np.concatenate([indices for part in parts for indices in part])
    assert len(np.unique(taken)) == len(taken) > samples - ranks * batch


@given(st.integers(1, 6), st.integers(1, 6), batches_of, st.integers(0, 100))
def test_global_batches_do_not_depend_on_the_ranks(ranks, factor, batch, more):
    """n learners with local batch kB take at each step what kn learners with B take."""
    samples = ranks * factor * batch + more
    order = epoch_permutation(samples, 3, 1)
    few, many = (ranks, factor * batch), (ranks * factor, batch)
    steps = steps_per_epoch(samples, *few)
    assert steps == steps_per_epoch(samples, *many)
    for step in range(steps):
        one, other = (
            np.concatenate([rank_slice(order, step, j, n, b) for j in range(n)])
            for n, b in (few, many)
        )
        assert np.array_equal(one, other)


@given(ranks_of, batches_of, st.integers(0, 100), st.data())
def test_resuming_gives_the_rest_of_the_epoch(ranks, batch, more, data):
    """Starting at step t equals dropping the first t batches."""
    order = epoch_permutation(ranks * batch + more, 0, 0)
    whole = list(rank_batches(order, rank=ranks - 1, ranks=ranks, batch=batch))
    step = data.draw(st.integers(0, len(whole)))
    rest = list(rank_batches(order, rank=ranks - 1, ranks=ranks, batch=batch, first_step=step))
    assert len(rest) == len(whole) - step
    assert all(map(np.array_equal, rest, whole[step:]))


@given(ranks_of, batches_of, st.integers(0, 100), st.integers(0, 5), st.integers(1, 9))
def test_a_kept_part_stays(ranks, batch, more, seed, epoch):
    """Disjoint over the learners, equally many, fewer than n left out, the same in every epoch."""
    samples = ranks * batch + more
    parts = [kept_permutation(samples, seed, epoch, rank=j, ranks=ranks) for j in range(ranks)]
    assert {len(part) for part in parts} == {samples // ranks}
    assert len(np.unique(np.concatenate(parts))) == samples // ranks * ranks
    for rank, part in enumerate(parts):
        first = kept_permutation(samples, seed, 0, rank=rank, ranks=ranks)
        assert np.array_equal(np.sort(part), np.sort(first))


def test_a_kept_part_is_permuted_each_epoch():
    """Every learner's orders differ from epoch to epoch, and its part from seed to seed."""
    for rank in range(3):
        orders = [kept_permutation(90, 1, epoch, rank=rank, ranks=3) for epoch in range(4)]
        assert len({order.tobytes() for order in orders}) == 4
        assert set(kept_permutation(90, 2, 0, rank=rank, ranks=3).tolist()) != set(
            orders[0].tolist()
        )


@given(ranks_of, batches_of, st.integers(0, 60), st.integers(1, 9), st.integers(0, 40))
def test_kept_blocks_stay(ranks, batch, more, block, buffer):
    """Each learner's samples of all epochs are N // n at most, and no other learner's."""
    samples = ranks * batch + more
    ends = np.array([samples // 3, samples]) if samples > 2 else np.array([samples])
    seen: list[set[int]] = []
    for rank in range(ranks):
        epochs = []
        for epoch in range(3):
            shuffle, mine = BlockShuffle(block, buffer), {"rank": rank, "ranks": ranks}
            _, batches = block_batches(ends, shuffle, 4, epoch, **mine, batch=batch, kept=True)
            taken = np.concatenate(list(batches))
            assert len(np.unique(taken)) == len(taken) == samples // ranks // batch * batch
            epochs.append(set(taken.tolist()))
        seen.append(set().union(*epochs))
        assert len(seen[-1]) <= samples // ranks
    assert len(set().union(*seen)) == sum(map(len, seen))


def test_kept_blocks_are_permuted_each_epoch():
    """All of a part that batches divide comes in every epoch, in another order each time."""
    orders = []
    for epoch in range(4):
        shuffle = BlockShuffle(block=5, buffer=0)
        _, batches = block_batches(
            np.array([40, 100]), shuffle, 1, epoch, rank=1, ranks=2, batch=10, kept=True
        )
        orders.append(np.concatenate(list(batches)))
    assert len({order.tobytes() for order in orders}) == 4
    assert len({np.sort(order).tobytes() for order in orders}) == 1


@given(ranks_of, ranks_of, st.integers(1, 3), st.integers(0, 50), st.data())
def test_others_take_over_global_batches(ranks, learners, factor, more, data):
    """Step by step n learners take together, in order, what `learners` would have taken."""
    size = np.lcm(ranks, learners).item() * factor
    samples = 3 * size + more
    first = data.draw(st.integers(0, 3))

    def order(seed, epoch, *, rank, ranks, batch, first_step):
        mine = kept_permutation(samples, seed, epoch, rank=rank, ranks=ranks)
        return rank_batches(mine, rank=0, ranks=1, batch=batch, first_step=first_step)

    def batches(n):
        shared = {"learners": learners, "ranks": n, "batch": size // n, "first_step": first}
        parts = [shared_order(order, 2, 1, rank=j, **shared) for j in range(n)]
        return [np.concatenate(step) for step in zip(*parts, strict=True)]

    theirs = [
        order(2, 1, rank=j, ranks=learners, batch=size // learners, first_step=first)
        for j in range(learners)
    ]
    expected = [np.concatenate(step) for step in zip(*theirs, strict=True)]
    assert np.array_equal(batches(ranks), expected)
    assert len(expected) == steps_per_epoch(samples, ranks, size // ranks) - first


@given(st.integers(0, 300), ranks_of, batches_of)
def test_evaluation_takes_every_sample_once(samples, ranks, batch):
    """Over all ranks: each sample once, in batches no larger than asked, in near-equal parts."""
    parts = [
        list(contiguous_batches(samples, rank=j, ranks=ranks, batch=batch)) for j in range(ranks)
    ]
    assert all(0 < len(indices) <= batch for part in parts for indices in part)
    everything = [index for part in parts for indices in part for index in indices.tolist()]
    assert everything == list(range(samples))
    sizes = [sum(map(len, part)) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_global_batch_larger_than_the_data_is_refused():
    """One line that names all three values, before any step."""
    wanted = r"global_batch=104: 4 learners take 26 .* holds 103; .* at most 100"
    with pytest.raises(UserError, match=wanted):
        steps_per_epoch(103, 4, 26)
    assert steps_per_epoch(104, 4, 26) == 1
