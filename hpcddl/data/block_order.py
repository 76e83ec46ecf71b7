"""An epoch's order for sets larger than memory: whole blocks are read, a buffer mixes them.

The set is cut into blocks of consecutive samples, which a disk reads at full speed. Each epoch
permutes the blocks, cuts their sequence into one contiguous part per learner, and passes each part
through a shuffle buffer. All of this is done on indices, lazily: the samples of a buffer lie in the
page cache, and the order is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcddl.data.sampler import steps_per_epoch


@dataclass(frozen=True)
class BlockShuffle:
    """How blocks are mixed: `block` consecutive samples each, in a buffer of `buffer` samples."""

    block: int = 4096
    buffer: int = 65536

    def pool(self, batch: int) -> int:
        """The samples K in the buffer: whole batches, at least the one that is drawn."""
        return max(self.buffer // batch, 1) * batch


class Ranges:
    """A sequence of samples made of ranges: range i is `counts[i]` samples from `firsts[i]` on."""

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self.firsts = firsts
        self.counts = counts
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(first sample, count) of each range."""
        for first, count in zip(self.firsts, self.counts, strict=True):
            yield int(first), int(count)

    def part(self, begin: int, end: int) -> Ranges:
        """Positions `begin` .. `end`-1 of the sequence, as a sequence."""
        if begin >= end:
            return Ranges(self.firsts[:0], self.counts[:0])
        low, high = self._ends.searchsorted([begin, end - 1], side="right")
        firsts, counts = self.firsts[low : high + 1].copy(), self.counts[low : high + 1].copy()
        counts[-1] -= self._ends[high] - end
        skipped = begin - (self._ends[low] - self.counts[low])
        firsts[0] += skipped
        counts[0] -= skipped
        return Ranges(firsts, counts)

    def samples(self, begin: int, end: int) -> NDArray[np.int64]:
        """(end - begin,) the samples at positions `begin` .. `end`-1."""
        positions = np.arange(begin, end)
        at = self._ends.searchsorted(positions, side="right")
        return positions - (self._ends[at] - self.counts[at]) + self.firsts[at]


def learner_part(
    shard_ends: NDArray, block: int, seed: int, epoch: int, *, rank: int, ranks: int, batch: int
) -> Ranges:
    """Returns what learner `rank` reads in an epoch: `steps * batch` samples of permuted blocks.

    The last block of a shard may be shorter. `shard_ends` (S,) is one past each shard's last
    sample. Raises UserError when there are fewer samples than one global batch takes.
    """
    begins = np.concatenate([[0], shard_ends[:-1]])
    cuts = [np.arange(begin, end, block) for begin, end in zip(begins, shard_ends, strict=True)]
    firsts = np.concatenate(cuts)
    counts = np.diff(np.append(firsts, shard_ends[-1]))
    order = np.random.default_rng([seed, epoch]).permutation(len(firsts))
    share = steps_per_epoch(int(shard_ends[-1]), ranks, batch) * batch
    return Ranges(firsts[order], counts[order]).part(rank * share, (rank + 1) * share)


def block_batches(
    shard_ends: NDArray,
    shuffle: BlockShuffle,
    seed: int,
    epoch: int,
    *,
    rank: int,
    ranks: int,
    batch: int,
    kept: bool = False,
) -> tuple[Ranges, Iterator[NDArray[np.int64]]]:
    """What learner `rank` reads in an epoch, in order, and its (B,) samples of each step.

    With `kept` the learner has the blocks of epoch 0 in every epoch, in another order.
    """
    # Without the 1, learner 0 would draw from the stream that has permuted the blocks.
    generator = np.random.default_rng([seed, epoch, rank + 1])
    if kept:
        whole = learner_part(shard_ends, shuffle.block, seed, 0, rank=rank, ranks=ranks, batch=1)
        order = generator.permutation(len(whole.firsts))
        permuted = Ranges(whole.firsts[order], whole.counts[order])
        part = permuted.part(0, len(whole) // batch * batch)
    else:
        part = learner_part(
            shard_ends, shuffle.block, seed, epoch, rank=rank, ranks=ranks, batch=batch
        )
    return part, buffered_batches(part, shuffle, generator, batch=batch)


def buffered_batches(
    part: Ranges, shuffle: BlockShuffle, generator: np.random.Generator, *, batch: int
) -> Iterator[NDArray[np.int64]]:
    """(B,) samples for each step: drawn uniformly from a buffer that the sequence `part` refills.

    At step t the buffer holds K samples of the first K + tB. A buffer of at most one batch gives
    the sequence itself, one of the whole part a uniform shuffle of it.
    """
    entered = min(shuffle.pool(batch), len(part))
    buffer = part.samples(0, entered)
    while entered < len(part):
        slots = generator.choice(len(buffer), batch, replace=False, shuffle=False)
        drawn = buffer[slots]
        buffer[slots] = part.samples(entered, entered + batch)
        entered += batch
        yield drawn
    generator.shuffle(buffer)
    for begin in range(0, len(buffer), batch):
        yield buffer[begin : begin + batch]
