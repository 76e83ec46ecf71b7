"""Copies a shard set to a node's own disk, once per node, and never trusts half a copy.

A copy grows under a name of its own and is renamed when every byte has been compared with the
manifest's checksums and is on the disk. One process copies, others of the node wait for it.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from hpcddl.data.byte_progress import ByteProgress
from hpcddl.data.manifest import MANIFEST, Manifest, read_manifest
from hpcddl.data.node_lock import node_lock
from hpcddl.data.shard_file import check_shard
from hpcddl.data.verified_copy import copy_set, set_files
from hpcddl.errors import UserError
from hpcddl.files import checksum, sync_folder
from hpcddl.world import World

_POLL_SECONDS = 0.05

Say = Callable[[str], None]


def folder_argument(text: str) -> Path:
    """The value of --stage; an unset variable must not become the current folder."""
    if not text:
        raise ArgumentTypeError("no folder given; is the variable set?")
    return Path(text)


def stage(world: World, source: Path, folder: Path) -> Path:
    """The copy of the shard set `source` in `folder`, made by one rank of each node. Collective.

    Raises AgreedError on all ranks when one node's copy fails.
    """

    def work() -> Path:
        try:
            if world.node.rank == 0:
                stage_here(source, folder, _print if world.rank == 0 else _keep_silent)
        finally:
            # No plain barrier: ranks that spin in it would take the cores from the copy.
            arrived = world.node.Ibarrier()
            while not arrived.Test():
                time.sleep(_POLL_SECONDS)
        return staged_path(source, folder)

    return world.together(work)


def staged_path(source: Path, folder: Path) -> Path:
    """Where a set's copy lies: named by its manifest, hence by every byte of the set."""
    read_manifest(source)
    return folder / f"hpcddl-{checksum(source / MANIFEST)}"


def stage_here(source: Path, folder: Path, say: Say) -> Path:
    """Copies the shard set `source` into `folder` unless a whole copy is there; returns its path.

    Raises UserError when there is too little room or the disk fills up (nothing is left behind),
    a file of the set is damaged, or another process holds the lock and does not get on.
    """
    manifest = read_manifest(source)
    target = staged_path(source, folder)
    if not folder.is_dir():
        raise UserError(f"--stage {folder}: no such folder; allowed: one on the node's own disk")
    try:
        if _is_whole(target, source, manifest):
            say(f"staged before: {target}")
            return target
        with node_lock(
            target.with_name(f".{target.name}.lock"),
            grown=lambda: sum(_size(file) for file in folder.glob(f"{target.name}.*/*")),
            waiting=lambda: say(f"waiting for another job of this node that stages {target}"),
        ):
            if not _is_whole(target, source, manifest):
                _copy(source, target, manifest, say)
    except OSError as error:
        raise UserError(f"--stage: {error.filename or folder}: {error.strerror}") from None
    return target


def _is_whole(target: Path, source: Path, manifest: Manifest) -> bool:
    """Whether every file is there in its size, and every shard with its structure."""
    try:
        for split in manifest.splits.values():
            for entry in split.shards:
                check_shard(target / entry.file, entry, manifest.fields)
    except UserError:
        return False
    return all(_size(target / file.name) == file.bytes for file in set_files(source, manifest))


def _copy(source: Path, target: Path, manifest: Manifest, say: Say) -> None:
    """Makes the copy; under the lock."""
    partial = f"{target.name}.{socket.gethostname()}."
    for dead in target.parent.glob(f"{partial}*"):
        shutil.rmtree(dead)
    size = sum(file.bytes for file in set_files(source, manifest))
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise UserError(
            f"--stage {target.parent}: the set has {size / 1e9:.3f} GB, "
            f"but only {free / 1e9:.3f} GB are free"
        )
    copy = target.with_name(f"{partial}{os.getpid()}")
    damaged = target.with_name(f"{copy.name}.damaged")
    progress = ByteProgress("staging", size, say)
    try:
        copy.mkdir()
        copy_set(source, copy, manifest, progress.add)
        if target.exists():
            # Jobs that read it keep what they have mapped.
            os.rename(target, damaged)
            shutil.rmtree(damaged)
        os.rename(copy, target)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    sync_folder(target.parent)
    say(f"staged {size / 1e9:.3f} GB, {progress}: {target}")


def _size(path: Path) -> int:
    """In bytes; -1 of what is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _print(text: str) -> None:
    print(text, flush=True)


def _keep_silent(text: str) -> None:
    pass
