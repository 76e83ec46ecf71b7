"""Copies a shard set to a node's own disk, once per node, and never uses a partial copy.

A copy grows under a name of its own and is renamed when every byte has been compared with the
manifest's checksums and is on the disk. One process copies, others of the node wait for it.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from argparse import ArgumentTypeError
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum, sync_folder
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import MANIFEST, Manifest, read_manifest
from hpcddl.data.node_lock import node_lock
from hpcddl.data.shard_file import check_shard
from hpcddl.data.verified_copy import copy_set, set_files

_POLL_SECONDS = 0.05


def folder_argument(text: str) -> Path:
    """Checks the value of --stage: an unset shell variable must not mean the current folder."""
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
                stage_here(source, folder, shown=world.rank == 0)
        finally:
            # No plain barrier: ranks that spin in it would take the cores from the copy.
            arrived = world.node.Ibarrier()
            while not arrived.Test():
                time.sleep(_POLL_SECONDS)
        return staged_path(source, folder)

    return world.together(work)


def staged_path(source: Path, folder: Path) -> Path:
    """Returns where a set's copy is stored: its name is a checksum of the manifest."""
    read_manifest(source)
    return folder / f"hpcddl-{checksum(source / MANIFEST)}"


def stage_here(source: Path, folder: Path, *, shown: bool) -> Path:
    """Copies the shard set `source` into `folder` unless a whole copy is there; returns its path.

    `shown` false hides the progress: only one rank of a job shows it.

    Raises UserError when there is too little room or the disk fills up (nothing is left behind),
    a file of the set is damaged, or another process holds the lock and makes no progress.
    """
    manifest = read_manifest(source)
    target = staged_path(source, folder)
    if not folder.is_dir():
        raise UserError(f"--stage {folder}: no such folder; must be one on the node's own disk")
    try:
        if _is_whole(target, source, manifest):
            _say(f"staged before: {target}", shown)
            return target
        with node_lock(
            target.with_name(f".{target.name}.lock"),
            grown=lambda: sum(_size(file) for file in folder.glob(f"{target.name}.*/*")),
            waiting=lambda: _say(f"waiting for another job that stages {target}", shown),
        ):
            if not _is_whole(target, source, manifest):
                _copy(source, target, manifest, shown)
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


def _copy(source: Path, target: Path, manifest: Manifest, shown: bool) -> None:
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
    try:
        copy.mkdir()
        with Progress(size, "staging", "GB", scale=10**9, shown=shown) as progress:
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
    _say(f"staged {size / 1e9:.3f} GB, {progress.rate:.2f} GB/s: {target}", shown)


def _size(path: Path) -> int:
    """Size in bytes; -1 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _say(text: str, shown: bool) -> None:
    if shown:
        print(text, flush=True)
