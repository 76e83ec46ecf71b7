"""Copies a shard set to a node's own disk, once per node, and never uses a partial copy.

A copy grows under a name of its own and is renamed when every byte has been compared with the
manifest's checksums and is on the disk. One process copies, others of the node wait for it.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from argparse import ArgumentTypeError
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum
from hpcddl.common.folders import put_in_place
from hpcddl.common.leftovers import remove_leftovers, temporary_path
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import MANIFEST, Manifest, read_manifest
from hpcddl.data.node_lock import node_lock
from hpcddl.data.verified_copy import copy_set, set_files
from hpcddl.data.verify import faults

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

    def work() -> Path | None:
        try:
            first = world.node.rank == 0
            return stage_here(source, folder, shown=world.rank == 0) if first else None
        finally:
            # No plain barrier: ranks that spin in it would take the cores from the copy.
            arrived = world.node.Ibarrier()
            while not arrived.Test():
                time.sleep(_POLL_SECONDS)

    path = world.together(work)
    return Path(world.node.bcast(os.fspath(path) if path else None))


def staged_path(source: Path, folder: Path) -> Path:
    """Returns where a set's copy is stored: its name is a checksum of the manifest."""
    read_manifest(source)
    return folder / f"hpcddl-{checksum(source / MANIFEST)}"


def stage_here(source: Path, folder: Path, *, shown: bool) -> Path:
    """Copies the shard set `source` into `folder` unless a whole copy is there; returns its path.

    Whoever made it, a copy is whole if every byte of it agrees with the checksums. Where another
    user has left one that is not, the copy gets a name of this user's own.

    `shown` false hides the progress: only one rank of a job shows it.

    Raises UserError when there is too little room or the disk fills up (nothing is left behind),
    a file of the set is damaged, or another process holds the lock and makes no progress.
    """
    manifest = read_manifest(source)
    shared = staged_path(source, folder)
    if not folder.is_dir():
        raise UserError(f"--stage {folder}: no such folder; must be one on the node's own disk")
    own = shared.with_name(f"{shared.name}-{os.geteuid()}")
    try:
        for target in (shared, own):
            if _is_whole(target, manifest, shown):
                _say(f"staged before: {target}", shown)
                return target
        target = own if _is_another_user_s(shared) else shared
        with node_lock(
            shared.with_name(f".{shared.name}.{os.geteuid()}.lock"),
            grown=lambda: sum(_size(file) for file in folder.glob(f".{target.name}.*/*")),
            waiting=lambda: _say(f"waiting for another job that stages {target}", shown),
        ):
            if not _is_whole(target, manifest, shown):
                _copy(source, target, manifest, shown)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and _is_another_user_s(shared):
            return stage_here(source, folder, shown=shown)  # another user's job was faster
        raise UserError(f"--stage: {error.filename or folder}: {error.strerror}") from None
    return target


def _is_another_user_s(path: Path) -> bool:
    return os.path.lexists(path) and path.lstat().st_uid != os.geteuid()


def _is_whole(target: Path, manifest: Manifest, shown: bool) -> bool:
    """Whether every byte in the folder is as the manifest says."""
    if not target.is_dir():
        return False
    try:
        if read_manifest(target) != manifest:
            return False
    except UserError:
        return False
    size = sum(split.bytes for split in manifest.splits.values())
    with Progress(size, "checking the staged copy", "GB", scale=10**9, shown=shown) as progress:
        for _, read, fault in faults(target, manifest):
            if fault is not None:
                return False
            progress.add(read)
    return True


def _copy(source: Path, target: Path, manifest: Manifest, shown: bool) -> None:
    """Makes the copy; under the lock."""
    remove_leftovers(target)
    size = sum(file.bytes for file in set_files(source, manifest))
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise UserError(
            f"--stage {target.parent}: the set has {size / 1e9:.3f} GB, "
            f"but only {free / 1e9:.3f} GB are free"
        )
    copy = temporary_path(target)
    try:
        copy.mkdir()
        with Progress(size, "staging", "GB", scale=10**9, shown=shown) as progress:
            copy_set(source, copy, manifest, progress.add)
        put_in_place(copy, target)  # jobs that read the one before keep what they have mapped
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
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
