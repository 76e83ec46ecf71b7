"""The full check of a shard set: every byte against the manifest, and what the values are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum
from hpcddl.data.manifest import Manifest, TextEntry, read_manifest
from hpcddl.data.shard_file import Region, check_contents, check_shard, layout
from hpcddl.data.values import bad_value, first_fault

_BLOCK_BYTES = 4 << 20  # read at a time


def faults(
    directory: str | os.PathLike[str], manifest: Manifest
) -> Iterator[tuple[str, int, UserError | None]]:
    """Each file of a shard set, its bytes, and what is wrong with it, or None."""
    folder = Path(directory)
    for text in manifest.texts:
        yield text.file, text.bytes, _text_fault(folder, text)
    for split in manifest.splits.values():
        for entry in split.shards:
            path = folder / entry.file
            fault = None
            try:
                regions = check_shard(path, entry, manifest.fields)
                if layout(path, manifest.fields, entry.samples) != regions:
                    raise UserError(f"{path}: HDF5 and the manifest name other offsets")
                check_contents(path, entry, regions)
                _check_values(path, regions, manifest.classes)
            except UserError as error:
                fault = error
            yield entry.file, entry.bytes, fault


def verify(directory: str | os.PathLike[str]) -> Manifest:
    """Reads every byte of a shard set and compares it with the manifest, which it returns.

    Raises:
        UserError: a file that is missing, cut, altered or of another layout, or has values that
            are no finite numbers or no classes; the first there is.
    """
    manifest = read_manifest(directory)
    for _, _, fault in faults(directory, manifest):
        if fault is not None:
            raise fault
    return manifest


def _check_values(path: Path, regions: Mapping[str, Region], classes: int) -> None:
    """Looks at every value of a shard, a few MiB at a time.

    Raises:
        UserError: a feature that is not finite, a label or token outside 0 .. C-1: the first one,
            and how many samples have one in that dataset.
    """
    for name, region in regions.items():
        first, bad, done = None, 0, 0
        for array in _blocks(path, region):
            fault = first_fault({name: array}, classes)
            if fault is not None:
                first = first or (done + fault.sample, fault.text)
                bad += fault.bad
            done += len(array)
        if first:
            others = f" (in {bad} of {done} samples)" if bad > 1 else ""
            raise bad_value(path, first[0], first[1] + others)


def _blocks(path: Path, region: Region) -> Iterator[NDArray]:
    """The samples of one dataset in their order: read, as a map would grow with the file."""
    samples, *shape = region.shape
    sample_bytes = region.size // samples
    step = max(1, _BLOCK_BYTES // sample_bytes)
    with open(path, "rb") as file:
        file.seek(region.offset)
        for begin in range(0, samples, step):
            count = min(step, samples - begin)
            values = np.fromfile(file, region.dtype, count * sample_bytes // region.dtype.itemsize)
            yield values.reshape(count, *shape)


def _text_fault(folder: Path, entry: TextEntry) -> UserError | None:
    path = folder / entry.file
    try:
        if checksum(path) == entry.checksum:
            return None
    except OSError as error:
        return UserError(f"{path}: named in the manifest, but {error.strerror}")
    return UserError(f"{path}: altered: its checksum is not {entry.checksum[:12]}...")
