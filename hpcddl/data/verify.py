"""The full check of a shard set: every byte against the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum
from hpcddl.data.manifest import Manifest, TextEntry, read_manifest
from hpcddl.data.shard_file import check_contents, check_shard, layout


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
            except UserError as error:
                fault = error
            yield entry.file, entry.bytes, fault


def verify(directory: str | os.PathLike[str]) -> Manifest:
    """Reads every byte of a shard set and compares it with the manifest, which it returns.

    Raises UserError naming the first file that is missing, cut, altered or of another layout.
    """
    manifest = read_manifest(directory)
    for _, _, fault in faults(directory, manifest):
        if fault is not None:
            raise fault
    return manifest


def _text_fault(folder: Path, entry: TextEntry) -> UserError | None:
    path = folder / entry.file
    try:
        if checksum(path) == entry.checksum:
            return None
    except OSError as error:
        return UserError(f"{path}: named in the manifest, but {error.strerror}")
    return UserError(f"{path}: altered: its checksum is not {entry.checksum[:12]}...")
