"""Which windows each learner takes at each step: pure functions of seed, epoch and step.

Global step t takes the nB entries `t*nB ..` of the epoch's permutation, and learner j their j-th
block of B. The same windows therefore make up global batch t for every n with the same nB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError


def epoch_permutation(samples: int, seed: int, epoch: int) -> NDArray[np.unsignedinteger]:
    """(N,) a permutation of 0 .. N-1, by `seed` and `epoch` only: the same on all ranks."""
    # Half the memory of int64, which every rank holds for every window there is.
    order = np.arange(samples, dtype=np.uint32 if samples < 2**32 else np.uint64)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def steps_per_epoch(samples: int, ranks: int, batch: int) -> int:
    """N // nB: all learners take equally many windows, none twice; the remainder is left out.

    Raises UserError when there are fewer windows than one global batch takes.
    """
    if ranks * batch > samples:
        raise UserError(
            f"global_batch={ranks * batch}: {ranks} learners take {batch} windows each per step, "
            f"but the training split holds {samples}; must be at most {samples // ranks * ranks}"
        )
    return samples // (ranks * batch)


def rank_slice(permutation: NDArray, step: int, rank: int, ranks: int, batch: int) -> NDArray:
    """(B,) the entries of `permutation` that learner `rank` takes at `step`: a view."""
    first = (step * ranks + rank) * batch
    assert 0 <= rank < ranks
    assert 0 <= first <= len(permutation) - batch
    return permutation[first : first + batch]


def rank_batches(
    permutation: NDArray, *, rank: int, ranks: int, batch: int, first_step: int = 0
) -> Iterator[NDArray]:
    """The slices of learner `rank` from `first_step` to the end of the epoch, each (B,).

    Raises UserError when there are fewer windows than one global batch takes.
    """
    for step in range(first_step, steps_per_epoch(len(permutation), ranks, batch)):
        yield rank_slice(permutation, step, rank, ranks, batch)


def kept_permutation(
    samples: int, seed: int, epoch: int, *, rank: int, ranks: int
) -> NDArray[np.unsignedinteger]:
    """(N // n,) the samples that learner `rank` keeps for good, permuted by `seed` and `epoch`.

    "Keeping the disjoint data parts completely local" (paper B, app. F). The parts are consecutive
    ones of epoch 0's permutation of all; fewer than n samples are in none.
    """
    share = samples // ranks
    part = epoch_permutation(samples, seed, 0)[rank * share : (rank + 1) * share].copy()
    np.random.default_rng([seed, epoch, rank + 1]).shuffle(part)
    return part


def shared_order(
    order: Callable[..., Iterator[NDArray]],
    seed: int,
    epoch: int,
    *,
    learners: int,
    rank: int,
    ranks: int,
    batch: int,
    first_step: int,
) -> Iterator[NDArray]:
    """(B,) for each step: learner `rank`'s share of the global batches that `learners` would take.

    `order` is `Dataset.order`. The global batch is the `learners`' batches in the order of their
    ranks, of which learner j takes the j-th block of B; with `learners` = n it is `order` itself.
    """
    theirs = ranks * batch // learners
    begin, end = rank * batch, (rank + 1) * batch
    owners = range(begin // theirs, -(-end // theirs))
    parts = [
        order(seed, epoch, rank=j, ranks=learners, batch=theirs, first_step=first_step)
        for j in owners
    ]
    skipped = begin - owners[0] * theirs
    for batches in zip(*parts, strict=True):
        yield np.concatenate(batches)[skipped : skipped + batch]


def contiguous_batches(samples: int, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
    """Every sample once over all ranks, in order and in near-equal parts: for evaluation.

    Each array has at most `batch` entries; a rank's last may have fewer, a rank may have none.
    """
    first, last = samples * rank // ranks, samples * (rank + 1) // ranks
    for begin in range(first, last, batch):
        yield np.arange(begin, min(begin + batch, last))
