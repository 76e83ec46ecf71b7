"""The files of one split, checked when they are opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError
from hpcddl.data.manifest import Manifest, read_manifest
from hpcddl.data.shard_file import Region, check_contents, check_shard

VERIFY_LIMIT_BYTES = 1 << 30
"""Splits up to this size are checksummed in full when opened: a fraction of a second."""


@dataclass(frozen=True)
class SplitFiles:
    """Shards of a split: where they are, and where their datasets lie."""

    manifest: Manifest
    split: str
    directory: Path
    paths: list[Path]
    regions: list[dict[str, Region]]
    ends: NDArray[np.int64]
    """(S,) one past the last sample of each shard."""


def open_files(
    directory: str | os.PathLike[str], split: str, needed: str, verify: bool | None = None
) -> SplitFiles:
    """The files of a split that must have the field `needed`, after checking every one.

    Sizes, layouts and the checksums of the HDF5 structure are always checked. All bytes are with
    `verify` true, never with false, and by default when the split has at most `VERIFY_LIMIT_BYTES`.

    Raises UserError naming the file and what is wrong with it.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if split not in manifest.splits:
        raise UserError(f"{directory}: no split {split!r}; it has {sorted(manifest.splits)}")
    entry = manifest.splits[split]
    if not entry.samples:
        raise UserError(f"{directory}: split {split!r} holds no samples")
    if needed not in manifest.fields:
        allowed = "text" if needed == "tokens" else "features with labels"
        raise UserError(f"{directory}: holds {manifest.kind}; must be {allowed}")
    paths = [directory / shard.file for shard in entry.shards]
    regions = [
        check_shard(path, shard, manifest.fields)
        for path, shard in zip(paths, entry.shards, strict=True)
    ]
    if verify or (verify is None and entry.bytes <= VERIFY_LIMIT_BYTES):
        for path, shard, parts in zip(paths, entry.shards, regions, strict=True):
            check_contents(path, shard, parts)
    ends = np.cumsum([shard.samples for shard in entry.shards])
    return SplitFiles(manifest, split, directory, paths, regions, ends)
