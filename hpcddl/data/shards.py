"""The HDF5 shard format as it is read: layout checks, checksums, and memory-mapped gathering.

A shard set is a folder of `SPLIT-00000.h5 ...` and a `manifest.json`; docs/data-format.md.
Every dataset is contiguous and unfiltered, so its bytes are one array in the file and can be
mapped: about ten times faster than HDF5's own reads of random rows.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.data.manifest import Manifest, ShardEntry, read_manifest
from hpcddl.errors import UserError
from hpcddl.files import sha256

VERIFY_LIMIT_BYTES = 1 << 30
"""Splits up to this size are checksummed in full when opened: about a second."""


@dataclass(frozen=True)
class Region:
    """One dataset's bytes inside a file: row-major `shape` of `dtype` at `offset`."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def map(self, path: Path) -> NDArray:
        """The dataset as a read-only array backed by the page cache."""
        mapped = np.memmap(path, self.dtype, "r", self.offset, self.shape)
        return mapped.view(np.ndarray)  # np.take is slower on the memmap subclass


def schema(
    windows: int, frames: int, features: int, dtype: str
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name, shape and type of a shard's datasets, in file order."""
    return {
        "features": ((windows, frames, features), np.dtype(dtype).newbyteorder("<")),
        "labels": ((windows, frames), np.dtype("<i4")),
        "utterance": ((windows,), np.dtype("<i4")),
        "start": ((windows,), np.dtype("<i4")),
    }


def layout(path: Path, expected: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, Region]:
    """Where each dataset's bytes lie in `path`.

    Raises UserError unless every dataset has the expected shape and type and can be mapped.
    """
    try:
        # Locks fail on parallel file systems mounted without them, and nothing writes here.
        with h5py.File(path, "r", locking=False) as file:
            return {
                name: _region(path, file, name, shape, dtype)
                for name, (shape, dtype) in expected.items()
            }
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable HDF5 file ({_one_line(error)})") from None


def _region(
    path: Path, file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> Region:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: no dataset {name!r}; expected {sorted(schema(1, 1, 1, 'f4'))}")
    if dataset.shape != shape:
        raise UserError(f"{path}: {name} has shape {dataset.shape}, expected {shape}")
    # Equality of dtypes includes the byte order.
    if dataset.dtype != dtype:
        raise UserError(f"{path}: {name} has type {dataset.dtype.str}, expected {dtype.str}")
    created = dataset.id.get_create_plist()
    if created.get_layout() != h5py.h5d.CONTIGUOUS or created.get_nfilters():
        raise UserError(f"{path}: {name} is chunked or compressed, expected a contiguous dataset")
    if created.get_external_count():
        raise UserError(f"{path}: {name} is stored in another file, expected it in this one")
    offset = dataset.id.get_offset()
    size = int(np.prod(shape)) * dtype.itemsize
    if offset is None or dataset.id.get_storage_size() != size:
        raise UserError(f"{path}: {name} was never written (no storage), expected {size} bytes")
    if offset % dtype.itemsize:
        # NumPy would copy the whole map at every access.
        raise UserError(f"{path}: {name} begins at byte {offset}, no multiple of {dtype.itemsize}")
    if offset + size > path.stat().st_size:
        raise UserError(
            f"{path}: {name} ends at byte {offset + size}, the file at {path.stat().st_size}"
        )
    return Region(offset, shape, dtype)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def check_shard(path: Path, entry: ShardEntry, manifest: Manifest) -> dict[str, Region]:
    """The layout of a shard after the cheap checks: its size, its header's checksum, its datasets.

    Raises UserError at the first that does not agree with the manifest.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: named in the manifest, but {error.strerror}") from None
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, expected {entry.bytes}: cut or replaced")
    _compare_checksum(path, entry.header_sha256, entry.header_bytes)
    return layout(path, schema(entry.windows, manifest.frames, manifest.features, manifest.dtype))


def _compare_checksum(path: Path, expected: str, size: int | None = None) -> None:
    got = sha256(path, size)
    if got != expected:
        part = "" if size is None else f" of the first {size} bytes"
        raise UserError(
            f"{path}: altered: SHA-256{part} is {got[:12]}..., expected {expected[:12]}..."
        )


def verify(directory: str | os.PathLike[str]) -> Manifest:
    """Reads every byte of a shard set and compares it with the manifest, which it returns.

    Raises UserError naming the first file that is missing, cut, altered or of another layout.
    """
    manifest = read_manifest(directory)
    for split in manifest.splits.values():
        for entry in split.shards:
            path = Path(directory) / entry.file
            check_shard(path, entry, manifest)
            _compare_checksum(path, entry.sha256)
    return manifest


class Shards:
    """One split of a shard set as a data set of `len()` windows, read through memory maps.

    Nothing is mapped before the first `gather`, and maps are read-only: an object opened before a
    fork may be used after it. `gather` may be called from several threads.
    """

    def __init__(self, directory: Path, split: str, manifest: Manifest) -> None:
        entry = manifest.splits[split]
        self.directory = directory
        self.split = split
        self.manifest = manifest
        self.frames = manifest.frames
        self.features = manifest.features
        self.classes = manifest.classes
        self.class_counts = np.asarray(manifest.class_counts, np.int64)
        """(C,) labelled frames per class in the *training* split, whichever split this is."""
        self._paths = [directory / shard.file for shard in entry.shards]
        self._layouts = [
            check_shard(path, shard, manifest)
            for path, shard in zip(self._paths, entry.shards, strict=True)
        ]
        self._ends = np.cumsum([shard.windows for shard in entry.shards])
        self._maps: list[tuple[NDArray, NDArray, int]] | None = None
        self._scratch = threading.local()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised tensors for `gather`: float32 (B, T, D) and int64 (B, T)."""
        shape = (batch, self.frames)
        if pin_memory:
            return (
                torch.empty((*shape, self.features), dtype=torch.float32, pin_memory=True),
                torch.empty(shape, dtype=torch.int64, pin_memory=True),
            )
        features = _huge_pages((*shape, self.features), "<f4")
        return torch.from_numpy(features), torch.empty(shape, dtype=torch.int64)

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills float32 (B, T, D) and int64 (B, T) with the B windows `indices`, *in index order*.

        Rows come out sorted by index, whatever the order asked for: each shard's rows are then one
        segment of the output, memory is read forwards, and the batch does not depend on how the set
        is cut into shards. The order inside a batch is immaterial to a mean loss.

        Raises IndexError for an index outside 0 .. len-1.
        """
        order = indices.astype(np.int64)
        order.sort()
        if not len(order):
            return
        # np.take's "clip" needs no copy of the output, but would hide a bad index.
        if order[0] < 0 or order[-1] >= len(self):
            raise IndexError(
                f"indices span {order[0]} .. {order[-1]}, {self.split} holds 0 .. {len(self) - 1}"
            )
        # All of torch's work first: after megabytes of copying its code is cold and costs tenfold.
        features, labels = features_out.numpy(), labels_out.numpy()
        narrow = self._buffer("labels", labels.shape, "<i4")
        if self.manifest.dtype == "float16":
            features = self._buffer("features", features.shape, "<f2")
        begin = 0
        ends = order.searchsorted(self._ends).tolist()
        for (source, source_labels, first), end in zip(self._mapped(), ends, strict=True):
            if end > begin:
                rows = order[begin:end] - first
                source.take(rows, axis=0, out=features[begin:end], mode="clip")
                source_labels.take(rows, axis=0, out=narrow[begin:end], mode="clip")
                begin = end
        np.copyto(labels, narrow)
        if self.manifest.dtype == "float16":
            # torch widens float16 ten times faster than NumPy or HDF5.
            features_out.copy_(torch.from_numpy(features))

    def batch(self, indices: NDArray) -> tuple[Tensor, Tensor]:
        """The windows `indices`, sorted, as new tensors: float32 (B, T, D) and int64 (B, T)."""
        features, labels = self.buffers(len(indices))
        self.gather(indices, features, labels)
        return features, labels

    def _mapped(self) -> list[tuple[NDArray, NDArray, int]]:
        """Features, labels and first window of each shard."""
        if self._maps is None:
            self._maps = [
                (regions["features"].map(path), regions["labels"].map(path), first)
                for path, regions, first in zip(
                    self._paths, self._layouts, [0, *self._ends.tolist()[:-1]], strict=True
                )
            ]
        return self._maps

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray:
        """A scratch array of this thread; a fresh one would cost its page faults each time."""
        held: NDArray | None = getattr(self._scratch, name, None)
        if held is None or len(held) < shape[0]:
            held = _huge_pages(shape, dtype)
            setattr(self._scratch, name, held)
        return held[: shape[0]]


_HUGE_PAGE_BYTES = 2 << 20


def _huge_pages(shape: tuple[int, ...], dtype: str) -> NDArray:
    """An uninitialised array on whole huge pages: gathering into small ones is up to 30 % slower.

    NumPy asks the kernel for them in arrays of at least 4 MiB, torch does not.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = -(-size // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    room = np.empty(max(whole + _HUGE_PAGE_BYTES, 2 * _HUGE_PAGE_BYTES), np.uint8)
    begin = -room.ctypes.data % _HUGE_PAGE_BYTES
    return room[begin : begin + size].view(dtype).reshape(shape)


def open_split(directory: str | os.PathLike[str], split: str, verify: bool | None = None) -> Shards:
    """Opens one split of a shard set after checking every file it needs.

    Sizes, header checksums and layouts are always checked. All bytes are checked against their
    SHA-256 with `verify` true, never with false, and by default when the split has at most
    `VERIFY_LIMIT_BYTES`.

    Raises UserError naming the file and what is wrong with it.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise UserError(f"{directory}: no split {split!r}; it has {sorted(manifest.splits)}")
    entry = manifest.splits[split]
    if not entry.windows:
        raise UserError(f"{directory}: split {split!r} holds no windows")
    shards = Shards(directory, split, manifest)
    if verify or (verify is None and entry.bytes <= VERIFY_LIMIT_BYTES):
        for shard in entry.shards:
            _compare_checksum(directory / shard.file, shard.sha256)
    return shards
