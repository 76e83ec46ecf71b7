"""`hpcddl bench shuffle`: how well the block shuffle mixes a shard set, beside an exact shuffle.

Compares data.shuffle=blocks with exact on the training split of a shard set: the probability that
two samples of a learner's batch are of the same utterance or speaker, and how far the batch's
classes are from the set's (total variation, 0 .. 1).

example: hpcddl bench shuffle shards/swb300 --batch 256 --ranks 16
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.bench import benchmark as bench
from hpcddl.common.bounds import at_least
from hpcddl.data.block_order import BlockShuffle, block_batches
from hpcddl.data.sampler import epoch_permutation, rank_batches, steps_per_epoch
from hpcddl.data.split_files import SplitFiles, open_files
from hpcddl.inspect.names import read_lines

_BUFFERS = [0, 4096, 16384, 65536]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench shuffle`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("path", type=Path, metavar="PATH", help="the folder of the shard set")
    add("--batch", type=at_least(2), default=256, help="samples of one learner per step")
    add("--ranks", type=one, default=1, help="learners, of which the first is measured")
    add("--block", type=one, default=BlockShuffle.block, help="samples per block")
    add("--buffer", type=at_least(0), nargs="+", default=_BUFFERS, help="samples in the buffer")
    add("--batches", type=one, default=300, help="batches measured, spread over the epoch")


@dataclass(frozen=True)
class _Marks:
    """What tells samples apart: (N,) of each group, and the labels of each shard."""

    groups: dict[str, NDArray]
    labels: list[NDArray]
    ends: NDArray[np.int64]
    shares: NDArray[np.float64]  # (C,) of the classes in the split

    def of(self, indices: NDArray) -> list[float]:
        """Measures a batch: each group's share of equal pairs, then the classes' variation."""
        count = len(indices)
        values = []
        for group in self.groups.values():
            same = np.unique(group[indices], return_counts=True)[1]
            values.append(float((same * (same - 1)).sum() / (count * (count - 1))))
        shards = self.ends.searchsorted(indices, side="right")
        labels = np.concatenate(
            [
                self.labels[shard][index - self.ends[shard] + len(self.labels[shard])].ravel()
                for shard, index in zip(shards.tolist(), indices.tolist(), strict=True)
            ]
        )
        seen = np.bincount(labels, minlength=len(self.shares)) / len(labels)
        return [*values, float(np.abs(seen - self.shares).sum() / 2)]


def measure(
    *, path: Path, batch: int, ranks: int, block: int, buffer: list[int], batches: int
) -> bench.Result:
    """Takes means over batches of an epoch: a row for the exact shuffle, and for each buffer."""
    files = open_files(path, "train", "labels", verify=False)
    samples = int(files.ends[-1])
    every = -(-steps_per_epoch(samples, ranks, batch) // batches)
    marks = _marks(files)
    names = [*(f"same_{name}" for name in marks.groups), "class_variation"]
    orders: dict[str, Iterator[NDArray]] = {
        "exact": rank_batches(epoch_permutation(samples, 0, 0), rank=0, ranks=ranks, batch=batch)
    }
    for size in buffer:
        shuffle = BlockShuffle(block, size)
        _, orders[f"blocks, buffer {size}"] = block_batches(
            files.ends, shuffle, 0, 0, rank=0, ranks=ranks, batch=batch
        )
    rows = {}
    for name, order in orders.items():
        measured = [marks.of(indices) for indices in islice(order, 0, None, every)]
        rows[name] = dict(zip(names, np.mean(measured, axis=0).tolist(), strict=True))
    return {
        "path": str(files.directory),
        "samples": samples,
        "batch": batch,
        "ranks": ranks,
        "block": block,
        "batches": len(measured),
        **{f"{name}s": len(np.unique(group)) for name, group in marks.groups.items()},
        "rows": rows,
    }


def _marks(files: SplitFiles) -> _Marks:
    regions = list(zip(files.paths, files.regions, strict=True))
    groups = {}
    if "utterance" in files.manifest.fields:
        maps = [region["utterance"].map(path) for path, region in regions]
        groups["utterance"] = np.concatenate(maps)
        sources = files.manifest.splits[files.split].sources
        if sources is not None:
            lines = read_lines(files.directory, sources)
            speakers = np.unique([line.split()[1] for line in lines], return_inverse=True)[1]
            groups["speaker"] = speakers[groups["utterance"]]
    counts = np.asarray(files.manifest.class_counts, np.float64)
    labels = [region["labels"].map(path) for path, region in regions]
    return _Marks(groups, labels, files.ends, counts / counts.sum())


def as_text(result: bench.Result) -> str:
    """Lays out a row per shuffle."""
    exact = result["rows"]["exact"]
    rows = {
        shuffle: {
            name: f"{value:.5f} ({f'{value / exact[name]:.2f}' if exact[name] else '-'})"
            for name, value in row.items()
        }
        for shuffle, row in result["rows"].items()
    }
    columns = [bench.Column(name.replace("_", " "), name) for name in exact]
    head = (
        f"{result['path']}: {result['samples']:,} samples, batches of {result['batch']} for each "
        f"of {result['ranks']} learners, blocks of {result['block']}; "
        f"means over {result['batches']} batches, and the ratio to exact"
    )
    return "\n".join([head, *bench.table(rows, columns, "shuffle")])


run = bench.command(measure, as_text)
