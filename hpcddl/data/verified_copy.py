"""Copies a shard set's files and compares every byte with the manifest on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import xxhash

from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum, sync_folder
from hpcddl.data.manifest import MANIFEST, STRUCTURE, Manifest, ShardEntry

_BLOCK_BYTES = 4 << 20
_STREAMS = 4  # parallel file systems give one reader a fraction of what they have
_WHOLE = "the file"

Count = Callable[[int], None]


@dataclass(frozen=True)
class SetFile:
    """One file: its parts in their order, (name, bytes), and a checksum for each name."""

    name: str
    parts: list[tuple[str, int]]
    checksums: Mapping[str, str]

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return sum(size for _, size in self.parts)


def set_files(source: Path, manifest: Manifest) -> Iterator[SetFile]:
    """All files of a shard set, the manifest last."""
    for split in manifest.splits.values():
        for entry in split.shards:
            yield SetFile(entry.file, _shard_parts(entry, manifest), entry.checksums)
    for text in manifest.texts:
        yield SetFile(text.file, [(_WHOLE, text.bytes)], {_WHOLE: text.checksum})
    path = source / MANIFEST
    yield SetFile(MANIFEST, [(_WHOLE, path.stat().st_size)], {_WHOLE: checksum(path)})


def _shard_parts(entry: ShardEntry, manifest: Manifest) -> list[tuple[str, int]]:
    """The parts of a shard in file order: structure and datasets alternate."""
    parts, end = [], 0
    for name, offset in sorted(entry.offsets.items(), key=lambda item: item[1]):
        size = entry.samples * manifest.fields[name].sample_bytes
        parts += [(STRUCTURE, offset - end), (name, size)]
        end = offset + size
    return [*parts, (STRUCTURE, entry.bytes - end)]


def copy_set(source: Path, target: Path, manifest: Manifest, count: Count) -> None:
    """Copies a set into the empty folder `target`; calls `count(n)` after every n bytes.

    Raises UserError naming the file that is cut or altered; OSError, as on a full disk.
    """
    *files, last = set_files(source, manifest)
    stop = threading.Event()

    def count_or_stop(written: int) -> None:
        if stop.is_set():
            raise _Stopped
        count(written)

    with ThreadPoolExecutor(_STREAMS) as pool:
        jobs = [pool.submit(_copy, source, target, file, count_or_stop) for file in files]
        try:
            ended = wait(jobs, return_when=FIRST_EXCEPTION).done
            for job in jobs:
                if job in ended:
                    job.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    # As in packing: a folder without a manifest is no shard set.
    _copy(source, target, last, count)
    sync_folder(target)


class _Stopped(Exception):
    """Another file's copy has failed."""


def _copy(source: Path, target: Path, file: SetFile, count: Count) -> None:
    digests = {part: xxhash.xxh3_128() for part, _ in file.parts}
    block = memoryview(bytearray(_BLOCK_BYTES))
    path, copy = source / file.name, target / file.name
    with open(path, "rb", buffering=0) as reader, open(copy, "xb", buffering=0) as writer:
        for part, left in file.parts:
            while left:
                read = reader.readinto(block[: min(left, _BLOCK_BYTES)])
                if not read:
                    raise UserError(f"{path}: shorter than the manifest says")
                digests[part].update(block[:read])
                _write(writer.fileno(), block[:read], copy)
                count(read)
                left -= read
        if reader.read(1):
            raise UserError(f"{path}: longer than the manifest says")
        os.fsync(writer.fileno())
    for part, digest in digests.items():
        if digest.hexdigest() != file.checksums[part]:
            raise UserError(f"{path}: {part} is altered: its checksum is not the manifest's")


def _write(file: int, data: memoryview, path: Path) -> None:
    while data:
        try:
            data = data[os.write(file, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
