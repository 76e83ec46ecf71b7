"""Which windows each learner takes at each step: pure functions of seed, epoch and step.

Global step t takes the nB entries `t*nB ..` of the epoch's permutation, and learner j their j-th
block of B. The same windows therefore make up global batch t for every n with the same nB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hpcddl.errors import UserError


def epoch_permutation(samples: int, seed: int, epoch: int) -> NDArray[np.unsignedinteger]:
    """(N,) a permutation of 0 .. N-1, by `seed` and `epoch` only: the same on all ranks."""
    # Half the memory of int64, which every rank holds for every window there is.
    order = np.arange(samples, dtype=np.uint32 if samples < 2**32 else np.uint64)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def steps_per_epoch(samples: int, ranks: int, batch: int) -> int:
    """N // nB: every learner takes equally many windows, none twice; the rest waits for its luck.

    Raises UserError when there are fewer windows than one global batch takes.
    """
    if ranks * batch > samples:
        raise UserError(
            f"global_batch={ranks * batch}: {ranks} learners take {batch} windows each per step, "
            f"but the training split holds {samples}; allowed: at most {samples // ranks * ranks}"
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


def contiguous_batches(samples: int, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
    """Every sample once over all ranks, in order and in near-equal parts: for evaluation.

    Each array has at most `batch` entries; a rank's last may have fewer, a rank may have none.
    """
    first, last = samples * rank // ranks, samples * (rank + 1) // ranks
    for begin in range(first, last, batch):
        yield np.arange(begin, min(begin + batch, last))
