"""Temporary names beside an output, and what killed commands have left under them."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

_DAY_SECONDS = 86400.0


def temporary_path(path: Path, what: str = "partial") -> Path:
    """Returns a hidden name beside `path` that no other process uses; it ends in `what`."""
    return path.with_name(f".{_short(path.name)}.{socket.gethostname()}.{os.getpid()}.{what}")


def leftovers(path: Path, what: str = "partial") -> list[Path]:
    """Lists the temporary files and folders beside `path` whose processes have ended.

    Those of this machine are known by their process. Of other machines nobody can be asked: theirs
    are left when nothing in them has changed for a day.
    """
    return _left(path.parent, f".{glob.escape(_short(path.name))}.*.{what}", what)


def remove_leftovers(path: Path) -> None:
    """Removes partial files and folders beside `path`, as far as they may be removed."""
    for one in leftovers(path):
        remove(one)


def remove_leftovers_in(folder: Path) -> None:
    """Removes partial files and folders of any name in `folder`, as far as they may be removed."""
    for one in _left(folder, ".*.partial", "partial"):
        remove(one)


def make_temporary_folder(parent: Path | None, name: str) -> Path:
    """Makes a folder in `parent` (None: where the system keeps such), and removes killed ones.

    The caller removes it; those of the same `name` that a killed process has left go now.

    Raises:
        OSError: it cannot be made.
    """
    kind = Path(parent or tempfile.gettempdir()) / name
    remove_leftovers(kind)
    start, end = f".{name}.", f".{socket.gethostname()}.{os.getpid()}.partial"
    return Path(tempfile.mkdtemp(prefix=start, suffix=end, dir=kind.parent))


def remove(path: Path) -> None:
    """Removes a file, or a folder with all in it, as far as it may be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # another user's


def _short(name: str) -> str:
    """A name that leaves room for more: file systems take 255 bytes."""
    whole = os.fsencode(name)
    return name if len(whole) <= 150 else f"{name[:30]}-{hashlib.sha256(whole).hexdigest()[:16]}"


def _left(folder: Path, pattern: str, what: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if _is_left(path, what)]


def _is_left(path: Path, what: str) -> bool:
    name, _, process = path.name.removesuffix(f".{what}").rpartition(".")
    if not process.isdecimal():
        return False
    if name.endswith(f".{socket.gethostname()}") and not _runs(process):
        return True
    return time.time() - _changed(path) > _DAY_SECONDS


def _runs(process: str) -> bool:
    try:
        state = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")  # ended, but its parent has not asked how


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was last changed; now if it is gone."""
    try:
        return max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:
        return time.time()
