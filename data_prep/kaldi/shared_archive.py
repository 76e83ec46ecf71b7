"""Writes a Kaldi archive by several ranks: each its own part, joined in rank order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import sync_folder, write_whole
from hpcddl.common.leftovers import remove_leftovers, temporary_path

Entries = list[tuple[str, int]]  # keys, and the offsets that an scp file names

_BLOCK_BYTES = 1 << 24


def write_shared(out: Path, world: World, write: Callable[[BinaryIO], Entries]) -> None:
    """Every rank's records in `out`, and the scp file beside it, whole or not at all. Collective.

    Records follow each other without a header, so that parts joined are the archive one rank would
    have written. Rank 0's part becomes the archive; the others' are on the same file system, as
    theirs are copied behind it. Sent through MPI instead, all would wait for rank 0 to write.

    Raises:
        UserError: of any rank's `write`, or a disk's.
    """
    part = temporary_path(out)
    if world.rank == 0:
        remove_leftovers(out)
    try:
        entries = world.together(lambda: _named(out, lambda: _write_part(part, write)))
        parts = world.comm.gather((part, entries))
        world.together(lambda: _named(out, lambda: _join(out, parts)) if parts else None)
    finally:
        part.unlink(missing_ok=True)


def _write_part(part: Path, write: Callable[[BinaryIO], Entries]) -> Entries:
    with open(part, "wb") as file:
        return write(file)


def _join(out: Path, parts: Iterable[tuple[Path, Entries]]) -> None:
    lines = []
    (first, entries), *others = parts
    with open(first, "r+b") as file:
        lines += [f"{key} {out.absolute()}:{offset}\n" for key, offset in entries]
        for path, entries in others:
            base = file.seek(0, os.SEEK_END)
            lines += [f"{key} {out.absolute()}:{base + offset}\n" for key, offset in entries]
            with open(path, "rb") as part:
                shutil.copyfileobj(part, file, _BLOCK_BYTES)
        file.flush()
        os.fsync(file.fileno())
    scp = out.with_suffix(".scp")
    # An older archive's offsets must not outlive it.
    scp.unlink(missing_ok=True)
    os.replace(first, out)
    sync_folder(out.parent)
    write_whole(scp, "".join(lines).encode())


def _named(out: Path, work: Callable[[], Entries | None]) -> Entries:
    try:
        return work() or []
    except OSError as error:
        raise UserError(f"--posteriors {out}: not written: {error.strerror or error}") from None
