"""Files that are either whole or not there."""

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes aside, syncs, renames: a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path, size: int | None = None) -> str:
    """SHA-256 of the first `size` bytes of a file, in hexadecimal; of all of it without `size`."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        if size is not None:
            digest.update(file.read(size))
        else:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
