"""`hpcddl bench shuffle`: how well the block shuffle mixes a shard set, beside an exact shuffle."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.data.block_order import BlockShuffle, block_batches
from hpcddl.data.sampler import epoch_permutation, rank_batches, steps_per_epoch
from hpcddl.data.split_files import SplitFiles, open_files
from hpcddl.inspect.names import read_lines

_BUFFERS = (0, 4096, 16384, 65536)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench shuffle`."""
    parser.description = (
        "Compares data.shuffle=blocks with exact on the training split of a shard set: the "
        "probability that two samples of a learner's batch are of the same utterance or speaker, "
        "and how far the batch's classes are from the set's (total variation, 0 .. 1)."
    )
    parser.epilog = "example: hpcddl bench shuffle shards/swb300 --batch 256 --ranks 16"
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="the folder of the shard set")
    add("--batch", type=int, default=256, help="samples of one learner per step")
    add("--ranks", type=int, default=1, help="learners, of which the first is measured")
    add("--block", type=int, default=BlockShuffle.block, help="samples per block")
    add("--buffer", type=int, nargs="+", default=list(_BUFFERS), help="samples in the buffer")
    add("--batches", type=int, default=300, help="batches measured, spread over the epoch")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    for name, low in (("batch", 2), ("ranks", 1), ("block", 1), ("batches", 1)):
        if getattr(arguments, name) < low:
            raise UserError(f"--{name}: {getattr(arguments, name)}, allowed: at least {low}")
    if min(arguments.buffer) < 0:
        raise UserError(f"--buffer: {min(arguments.buffer)}, allowed: at least 0")
    files = open_files(arguments.path, "train", "labels", verify=False)
    result = measure(
        files,
        batch=arguments.batch,
        ranks=arguments.ranks,
        block=arguments.block,
        buffers=arguments.buffer,
        batches=arguments.batches,
    )
    print(json.dumps(result) if arguments.json else _text(result))
    return 0


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
    files: SplitFiles, *, batch: int, ranks: int, block: int, buffers: list[int], batches: int
) -> dict[str, Any]:
    """One row for the exact shuffle and one for each buffer: means over batches of an epoch."""
    samples = int(files.ends[-1])
    steps = steps_per_epoch(samples, ranks, batch)
    marks = _marks(files)
    names = [*(f"same_{name}" for name in marks.groups), "class_variation"]
    orders: dict[str, Iterator[NDArray]] = {
        "exact": rank_batches(epoch_permutation(samples, 0, 0), rank=0, ranks=ranks, batch=batch)
    }
    for buffer in buffers:
        shuffle = BlockShuffle(block, buffer)
        _, orders[f"blocks, buffer {buffer}"] = block_batches(
            files.ends, shuffle, 0, 0, rank=0, ranks=ranks, batch=batch
        )
    rows = {}
    for name, order in orders.items():
        measured = [marks.of(indices) for indices in islice(order, 0, None, -(-steps // batches))]
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


def _text(result: dict[str, Any]) -> str:
    rows = result["rows"]
    measures = list(rows["exact"])
    lines = [
        f"{result['path']}: {result['samples']:,} samples, batches of {result['batch']} for each "
        f"of {result['ranks']} learners, blocks of {result['block']}; "
        f"means over {result['batches']} batches, and the ratio to exact",
        f"{'shuffle':<24}" + "".join(f"{name.replace('_', ' '):>24}" for name in measures),
    ]
    for name, row in rows.items():
        cells = [f"{row[m]:.5f} ({_ratio(row[m], rows['exact'][m])})" for m in measures]
        lines.append(f"{name:<24}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def _ratio(value: float, exact: float) -> str:
    return f"{value / exact:.2f}" if exact else "-"
