"""Output folders that are either complete or absent, and are never missing while replaced."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcddl.common.errors import UserError, warn
from hpcddl.common.files import sync_folder
from hpcddl.common.leftovers import leftovers, remove, remove_leftovers, temporary_path

_HERE = -100  # AT_FDCWD of Linux: paths as everywhere
_EXCHANGE = 2  # RENAME_EXCHANGE


@contextmanager
def whole_folder(out: Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """Makes a hidden folder beside `out`; renames it to `out` at the end, removes it on errors.

    Raises:
        UserError: as `check_replaceable`; the folder cannot be made.
    """
    out = Path(os.path.abspath(out))
    check_replaceable(out, marker, overwrite)
    partial = temporary_path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise UserError(f"{out}: cannot make the folder ({error.strerror})") from None
    try:
        yield partial
        put_in_place(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_replaceable(out: Path, marker: str, overwrite: bool) -> None:
    """Checks that `out` may be written; first clears away what a killed command has left there.

    Raises:
        UserError: `out` exists, unless `overwrite` and it holds the file `marker`: what is replaced
            must be an earlier output, not any other folder.
    """
    _clear_away(out)
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out}: exists already; must be a new folder; fix: --overwrite")
    if not (out / marker).is_file():
        raise UserError(f"{out}: holds no {marker}, so it is no earlier output: not overwritten")


def put_in_place(folder: Path, out: Path) -> None:
    """Renames `folder` to `out`, and removes what was `out` before.

    The two change names in one step. A file system that has no such step (NFS) has no `out` for a
    moment; a command that is killed just then leaves it to the next one to bring it back.
    """
    if not os.path.lexists(out):
        os.rename(folder, out)
        sync_folder(out.parent)
        return
    old = temporary_path(out, "old")
    if _exchange(folder, out):
        os.rename(folder, old)
    else:
        os.rename(out, old)
        os.rename(folder, out)
    sync_folder(out.parent)
    try:
        shutil.rmtree(old)
    except OSError as error:
        warn(f"{old}: the folder that {out.name} replaces cannot be removed: {error.strerror}")


def _clear_away(out: Path) -> None:
    """Removes leftovers of `out`, or brings back an old folder whose replacement never came."""
    remove_leftovers(out)
    for old in leftovers(out, "old"):
        if os.path.lexists(out):
            remove(old)
        else:
            os.rename(old, out)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two paths change names in one step; false where the file system cannot."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False  # a C library from before 2018
    return bool(function(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)
