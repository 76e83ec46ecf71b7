"""One HDF5 shard: how it is laid out, written, checked and mapped.

Every dataset is contiguous and unfiltered, so its bytes are one array in the file and can be
mapped: about ten times faster than HDF5's own reads of random rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum
from hpcddl.common.leftovers import temporary_path
from hpcddl.data.manifest import STRUCTURE, FieldEntry, ShardEntry
from hpcddl.data.mapped import map_bytes
from hpcddl.data.values import ANY_CLASS, bad_value, first_fault

Fields = Mapping[str, FieldEntry]
_ALIGNMENT = 64  # bytes; else an odd number of float16 would leave the labels off by two


@dataclass(frozen=True)
class Region:
    """One dataset's bytes inside a file: row-major `shape` of `dtype` at `offset`."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def map(self, path: Path) -> NDArray:
        """Maps the dataset as a read-only array backed by the page cache; no file stays open."""
        return map_bytes(path, self.offset, self.size).view(self.dtype).reshape(self.shape)


def layout(path: Path, fields: Fields, samples: int) -> dict[str, Region]:
    """Where HDF5 says that each dataset's bytes lie in `path`.

    Raises UserError unless every dataset has the expected shape and type and can be mapped.
    """
    try:
        # Locks fail on parallel file systems mounted without them, and nothing writes here.
        with h5py.File(path, "r", locking=False) as file:
            return {
                name: _region(path, file, name, (samples, *field.shape), field.type)
                for name, field in fields.items()
            }
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable HDF5 file ({reason})") from None


def _region(
    path: Path, file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> Region:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise UserError(f"{path}: no dataset {name!r}; it has {sorted(file)}")
    # Equality of dtypes includes the byte order.
    if dataset.shape != shape or dataset.dtype != dtype:
        raise UserError(
            f"{path}: {name} is {dataset.dtype.str} of {dataset.shape}, "
            f"expected {dtype.str} of {shape}"
        )
    created = dataset.id.get_create_plist()
    if created.get_layout() != h5py.h5d.CONTIGUOUS or created.get_nfilters():
        raise UserError(f"{path}: {name} is chunked or compressed, expected a contiguous dataset")
    if created.get_external_count():
        raise UserError(f"{path}: {name} is stored in another file, expected it in this one")
    offset = dataset.id.get_offset()
    region = Region(offset or 0, shape, dtype)
    if offset is None or dataset.id.get_storage_size() != region.size:
        raise UserError(f"{path}: {name} was never written, expected {region.size} bytes")
    return region


class ShardWriter:
    """Writes one shard of `samples` samples aside, and renames it when it is whole.

    The same samples give the same bytes. The partial file's name is this process's own, so two that
    write the same shard do not meet. As a context manager it removes the partial file when `seal`
    is not reached.

    Args:
        classes: C; labels and tokens must be 0 .. C-1.
    """

    def __init__(self, path: Path, fields: Fields, samples: int, classes: int = ANY_CLASS) -> None:
        self.path = path
        self.classes = classes
        self.samples = samples
        self.room = samples
        self._partial = temporary_path(path)
        _create(self._partial, fields, samples)
        self._regions = layout(self._partial, fields, samples)
        self._digests = {name: xxhash.xxh3_128() for name in fields}
        self._ends = {name: region.offset for name, region in self._regions.items()}
        # Plain writes, not a map: a full disk must raise an error, and on a map it is a SIGBUS.
        self._file = os.open(self._partial, os.O_WRONLY)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._partial.unlink(missing_ok=True)

    def append(self, arrays: Mapping[str, NDArray]) -> None:
        """Adds n samples: for each field (n, *shape), of its type or float32 for float16.

        Raises:
            ValueError: other shapes, or more samples than there is room for.
            UserError: a feature that is not finite as it is stored, a label that is no class; the
                disk is full.
        """
        count = len(arrays["features" if "features" in arrays else "tokens"])
        if count > self.room:
            raise ValueError(f"{self.path}: {count} samples, room for {self.room}")
        stored = {
            name: _stored(arrays[name], region.dtype, (count, *region.shape[1:]))
            for name, region in self._regions.items()
        }
        self._check(arrays)
        narrowed = {name: part for name, part in stored.items() if part.dtype != arrays[name].dtype}
        self._check(narrowed, ": beyond float16, which ends at 65504")
        for name, array in stored.items():
            self._write(name, array)
        self.room -= count

    def _check(self, arrays: Mapping[str, NDArray], why: str = "") -> None:
        fault = first_fault(arrays, self.classes)
        if fault is not None:
            sample = self.samples - self.room + fault.sample
            # The file's name alone: its folder may be a temporary one.
            raise bad_value(Path(self.path.name), sample, fault.text + why)

    def _write(self, name: str, array: NDArray) -> None:
        # Flat, as a memoryview with an empty dimension cannot be cast.
        data: Any = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        self._digests[name].update(data)
        try:
            while data:
                written = os.pwrite(self._file, data, self._ends[name])
                self._ends[name] += written
                data = data[written:]
        except OSError as error:
            raise UserError(f"{self._partial}: {error.strerror}") from None

    def seal(self) -> ShardEntry:
        """Makes the shard durable and gives it its name; returns its entry in the manifest.

        Raises ValueError when samples are missing; UserError when the disk is full.
        """
        if self.room:
            raise ValueError(f"{self.path}: {self.room} of {self.samples} samples are missing")
        try:
            os.fsync(self._file)
        except OSError as error:
            raise UserError(f"{self._partial}: {error.strerror}") from None
        entry = ShardEntry(
            file=self.path.name,
            samples=self.samples,
            bytes=self._partial.stat().st_size,
            offsets={name: region.offset for name, region in self._regions.items()},
            checksums={
                STRUCTURE: structure_checksum(self._partial, self._regions),
                **{name: digest.hexdigest() for name, digest in self._digests.items()},
            },
        )
        os.close(self._file)
        self._file = -1
        os.replace(self._partial, self.path)
        return entry


def _stored(array: NDArray, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray:
    if dtype == np.dtype("<f2") and array.dtype == np.float32:
        # torch narrows to float16 ten times faster than NumPy; both round to nearest even.
        array = torch.from_numpy(np.ascontiguousarray(array)).to(torch.float16).numpy()
    if array.dtype.newbyteorder("<") != dtype or array.shape != shape:
        raise ValueError(f"{array.dtype} of {array.shape}, expected {dtype} of {shape}")
    return np.ascontiguousarray(array, dtype)


def _create(path: Path, fields: Fields, samples: int) -> None:
    try:
        with h5py.File(
            path,
            "w",
            libver="earliest",
            locking=False,
            alignment_threshold=1,
            alignment_interval=_ALIGNMENT,
        ) as file:
            for name, field in fields.items():
                created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                created.set_layout(h5py.h5d.CONTIGUOUS)
                created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                # Every byte is written later; filling first would write the file twice.
                created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                created.set_obj_track_times(False)
                h5py.h5d.create(
                    file.id,
                    name.encode(),
                    h5py.h5t.py_create(field.type, logical=True),
                    h5py.h5s.create_simple((samples, *field.shape)),
                    created,
                )
    except (OSError, RuntimeError) as error:  # h5py's own on a full disk
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot write the shard ({reason})") from None


def check_shard(path: Path, entry: ShardEntry, fields: Fields) -> dict[str, Region]:
    """Where a shard's datasets lie, after the cheap checks: its size and its HDF5 structure.

    Raises UserError for what does not agree with the manifest.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: named in the manifest, but {error.strerror}") from None
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, expected {entry.bytes}: cut or replaced")
    regions = {
        name: Region(entry.offsets[name], (entry.samples, *field.shape), field.type)
        for name, field in fields.items()
    }
    _compare(path, "the HDF5 structure", structure_checksum(path, regions), entry, STRUCTURE)
    return regions


def check_contents(path: Path, entry: ShardEntry, regions: Mapping[str, Region]) -> None:
    """Reads every byte of a shard's datasets.

    Raises:
        UserError: one is altered, which it names.
    """
    for name, region in regions.items():
        _compare(path, name, checksum(path, region.offset, region.size), entry, name)


def _compare(path: Path, what: str, got: str, entry: ShardEntry, name: str) -> None:
    expected = entry.checksums.get(name)
    if got != expected:
        raise UserError(
            f"{path}: {what} is altered: checksum {got[:12]}..., expected {str(expected)[:12]}..."
        )


def structure_checksum(path: Path, regions: Mapping[str, Region]) -> str:
    """Computes the checksum of all bytes outside the datasets, which have their own checksums."""
    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        for region in sorted(regions.values(), key=lambda region: region.offset):
            digest.update(file.read(region.offset - file.tell()))
            file.seek(region.offset + region.size)
        digest.update(file.read())
    return digest.hexdigest()
