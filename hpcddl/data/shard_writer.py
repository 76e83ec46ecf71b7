"""Writes a shard set: shards aside and renamed when whole, the manifest last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from hpcddl.data.manifest import Manifest, ShardEntry, SplitEntry, write_manifest
from hpcddl.data.shards import Region, layout, schema
from hpcddl.files import sha256, sync_folder


class ShardSetWriter:
    """Streams windows into shards whose sizes are known beforehand.

    `windows` is the number of windows of each split, `train` among them; `append` must bring
    exactly that many before `finish`. Memory does not grow with the set, and the same input gives
    the same bytes. As a context manager it closes its files when `finish` is not reached.
    """

    def __init__(
        self,
        directory: Path,
        *,
        frames: int,
        features: int,
        classes: int,
        dtype: str,
        windows: Mapping[str, int],
        windows_per_shard: int,
    ) -> None:
        self.directory = directory
        self.classes = classes
        self._dimensions = {"frames": frames, "features": features, "dtype": dtype}
        self._splits = {
            split: _SplitWriter(directory, split, total, windows_per_shard, self._dimensions)
            for split, total in windows.items()
        }
        self._class_counts = np.zeros(classes, np.int64)

    def __enter__(self) -> ShardSetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for split in self._splits.values():
            split.close()

    def append(
        self,
        split: str,
        features: NDArray[np.float32],
        labels: NDArray[np.int32],
        utterance: NDArray[np.int32],
        start: NDArray[np.int32],
    ) -> None:
        """Adds n windows: float32 (n, T, D), int32 (n, T), (n,), (n,).

        Raises ValueError for labels outside 0 .. C-1 or more windows than announced.
        """
        if not len(labels):
            return
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(
                f"labels span {labels.min()} .. {labels.max()}, expected 0 .. {self.classes - 1}"
            )
        if split == "train":
            self._class_counts += np.bincount(labels.ravel(), minlength=self.classes)
        self._splits[split].append(
            {"features": features, "labels": labels, "utterance": utterance, "start": start}
        )

    def finish(
        self,
        *,
        utterances: Mapping[str, list[str]],
        speakers: Mapping[str, list[str]],
        utterance_speaker: Mapping[str, list[int]],
        provenance: Mapping[str, Any],
        counts: Mapping[str, Any],
    ) -> Manifest:
        """Closes the last shards and writes the manifest, which it returns.

        Raises ValueError when a split got fewer windows than announced.
        """
        splits = {
            name: SplitEntry(
                windows=split.total,
                shards=split.finish(),
                utterances=utterances[name],
                speakers=speakers[name],
                utterance_speaker=utterance_speaker[name],
            )
            for name, split in self._splits.items()
        }
        sync_folder(self.directory)
        manifest = Manifest.model_validate(
            {
                **self._dimensions,
                "classes": self.classes,
                "class_counts": self._class_counts.tolist(),
                "splits": splits,
                "provenance": dict(provenance),
                "counts": dict(counts),
            }
        )
        write_manifest(self.directory, manifest)
        return manifest


class _SplitWriter:
    def __init__(
        self,
        directory: Path,
        split: str,
        total: int,
        windows_per_shard: int,
        dimensions: dict[str, Any],
    ) -> None:
        self.directory = directory
        self.split = split
        self.total = total
        self.windows_per_shard = windows_per_shard
        self.dimensions = dimensions
        self._done: list[ShardEntry] = []
        self._written = 0
        self._file: BinaryIO | None = None
        self._regions: dict[str, Region] = {}
        self._row = 0

    def append(self, arrays: dict[str, NDArray]) -> None:
        count = len(arrays["labels"])
        if self._written + count > self.total:
            raise ValueError(f"{self.split}: more windows than the {self.total} announced")
        begin = 0
        while begin < count:
            file = self._file or self._open()
            room = self._regions["labels"].shape[0] - self._row
            end = min(count, begin + room)
            for name, region in self._regions.items():
                _write_rows(file, region, self._row, arrays[name][begin:end])
            self._row += end - begin
            self._written += end - begin
            begin = end
            if self._row == self._regions["labels"].shape[0]:
                self._seal(file)

    def finish(self) -> list[ShardEntry]:
        if self._written != self.total:
            raise ValueError(f"{self.split}: {self._written} windows, {self.total} announced")
        return self._done

    def _paths(self) -> tuple[Path, Path]:
        name = f"{self.split}-{len(self._done):05d}.h5"
        return self.directory / f".{name}.partial", self.directory / name

    def _open(self) -> BinaryIO:
        windows = min(self.windows_per_shard, self.total - self._written)
        partial, _ = self._paths()
        datasets = schema(windows, **self.dimensions)
        # Aligned, so that maps are: an odd number of float16 would leave the labels off by two.
        with h5py.File(
            partial,
            "w",
            libver="earliest",
            locking=False,
            alignment_threshold=1,
            alignment_interval=64,
        ) as file:
            for name, (shape, dtype) in datasets.items():
                created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                created.set_layout(h5py.h5d.CONTIGUOUS)
                created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                # Every byte is written below; filling first would write the file twice.
                created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                created.set_obj_track_times(False)
                h5py.h5d.create(
                    file.id,
                    name.encode(),
                    h5py.h5t.py_create(dtype, logical=True),
                    h5py.h5s.create_simple(shape),
                    created,
                )
        self._regions = layout(partial, datasets)
        self._row = 0
        # Plain writes, not a map: a full disk must raise an error, and on a map it is a SIGBUS.
        self._file = open(partial, "r+b")  # noqa: SIM115
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _seal(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self.close()
        partial, path = self._paths()
        header = min(region.offset for region in self._regions.values())
        entry = ShardEntry(
            file=path.name,
            windows=self._regions["labels"].shape[0],
            bytes=partial.stat().st_size,
            sha256=sha256(partial),
            header_bytes=header,
            header_sha256=sha256(partial, header),
        )
        os.replace(partial, path)
        self._done.append(entry)


def _write_rows(file: BinaryIO, region: Region, row: int, array: NDArray) -> None:
    if region.dtype == np.dtype("<f2"):
        # torch narrows to float16 ten times faster than NumPy; both round to nearest even.
        narrow = torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(torch.float16)
        array = narrow.numpy()
    array = np.ascontiguousarray(array, region.dtype)
    if array.shape[1:] != region.shape[1:]:
        raise ValueError(f"rows have shape {array.shape[1:]}, expected {region.shape[1:]}")
    file.seek(region.offset + row * int(np.prod(region.shape[1:])) * region.dtype.itemsize)
    file.write(array.data)
