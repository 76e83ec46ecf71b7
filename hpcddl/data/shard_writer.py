"""Writes a shard set from one stream of samples: shards first, the manifest last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.files import checksum, sync_folder, whole_file
from hpcddl.data.manifest import (
    Kind,
    Manifest,
    ShardEntry,
    SplitEntry,
    TextEntry,
    write_manifest,
)
from hpcddl.data.shard_file import Fields, ShardWriter


def shard_name(split: str, number: int) -> str:
    """The file name of a split's shard, numbered from 0."""
    return f"{split}-{number:05d}.h5"


def write_lines(path: Path, lines: Iterable[str]) -> TextEntry:
    """Writes one name per line in one piece; returns the entry in the manifest."""
    count = 0
    with whole_file(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())
            count += 1
    return TextEntry(
        file=path.name, lines=count, bytes=path.stat().st_size, checksum=checksum(path)
    )


class ShardSetWriter:
    """Streams samples into shards whose sizes are known beforehand.

    `samples` is the number of samples of each split, `train` among them; `append` must bring
    exactly that many before `finish`. Memory does not grow with the set, and the same input gives
    the same bytes. As a context manager it leaves no partial file when `finish` is not reached.
    """

    def __init__(
        self,
        directory: Path,
        kind: Kind,
        fields: Fields,
        *,
        classes: int,
        samples: Mapping[str, int],
        samples_per_shard: int,
    ) -> None:
        self.directory = directory
        self.kind: Kind = kind
        self.fields = dict(fields)
        self.classes = classes
        self._samples = dict(samples)
        self._per_shard = samples_per_shard
        self._done: dict[str, list[ShardEntry]] = {split: [] for split in samples}
        self._written = dict.fromkeys(samples, 0)
        self._open: dict[str, ShardWriter] = {}
        self._class_counts = np.zeros(classes, np.int64)

    def __enter__(self) -> ShardSetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():
            shard.__exit__()

    def append(self, split: str, **arrays: NDArray) -> None:
        """Adds n samples: for each field (n, *shape), of its type or float32 for float16.

        Raises:
            ValueError: more samples than announced.
            UserError: a feature that is not finite, a label outside 0 .. C-1; the disk is full.
        """
        classes = arrays["labels" if "labels" in arrays else "tokens"]
        count = len(classes)
        if self._written[split] + count > self._samples[split]:
            raise ValueError(f"{split}: more samples than the {self._samples[split]} announced")
        begin = 0
        while begin < count:
            shard = self._open.get(split) or self._next(split)
            end = min(count, begin + shard.room)
            shard.append({name: array[begin:end] for name, array in arrays.items()})
            self._written[split] += end - begin
            begin = end
            if not shard.room:
                self._done[split].append(self._open.pop(split).seal())
        if split == "train":
            self._class_counts += class_counts(classes, self.classes)

    def _next(self, split: str) -> ShardWriter:
        path = self.directory / shard_name(split, len(self._done[split]))
        left = self._samples[split] - self._written[split]
        samples = min(self._per_shard, left)
        shard = self._open[split] = ShardWriter(path, self.fields, samples, self.classes)
        return shard

    def finish(
        self,
        *,
        provenance: Mapping[str, Any],
        counts: Mapping[str, Any],
        sources: Mapping[str, TextEntry] | None = None,
        names: TextEntry | None = None,
        skipped: TextEntry | None = None,
    ) -> Manifest:
        """Writes the manifest, which it returns.

        Raises ValueError when a split got fewer samples than announced.
        """
        for split, count in self._samples.items():
            if self._written[split] != count:
                raise ValueError(f"{split}: {self._written[split]} samples, {count} announced")
        sync_folder(self.directory)
        manifest = Manifest(
            kind=self.kind,
            fields=self.fields,
            classes=self.classes,
            class_counts=self._class_counts.tolist(),
            names=names,
            skipped=skipped,
            splits={
                split: SplitEntry(
                    samples=count, shards=self._done[split], sources=(sources or {}).get(split)
                )
                for split, count in self._samples.items()
            },
            provenance=dict(provenance),
            counts=dict(counts),
        )
        write_manifest(self.directory, manifest)
        return manifest


def class_counts(labels: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    """(C,) how often each class occurs.

    Raises:
        ValueError: one outside 0 .. C-1.
    """
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        span = f"{labels.min()} .. {labels.max()}"
        raise ValueError(f"labels span {span}, expected 0 .. {classes - 1}")
    return np.bincount(labels.ravel(), minlength=classes)
