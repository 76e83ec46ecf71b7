"""Writes files that are either complete or absent."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

from hpcddl.common.leftovers import remove_leftovers, temporary_path

_BLOCK_BYTES = 1 << 22


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file for `path`: renamed to it at the end, removed on any error.

    A reader sees the old file or the new one, never a part.
    """
    remove_leftovers(path)
    partial = temporary_path(path)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a `whole_file` in one go."""
    with whole_file(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def checksum(path: Path, offset: int = 0, size: int | None = None) -> str:
    """Computes XXH3 (128 bit, hexadecimal) of `size` bytes from `offset`, or up to the end.

    It is ten times faster than SHA-256 and detects damage as well, but not forgery.
    """
    digest = xxhash.xxh3_128()
    left = size if size is not None else path.stat().st_size - offset
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
