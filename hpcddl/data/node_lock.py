"""A lock between processes of one node, released when its holder ends in any way."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcddl.common.errors import UserError

STALLED_SECONDS = 120.0
_POLL_SECONDS = 0.1


@contextmanager
def node_lock(path: Path, grown: Callable[[], int], waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock named by the file `path`, which is removed when it is released.

    Calls `waiting` once when another process holds it. Raises UserError when `grown()`, which
    measures the holder's work, has not changed for two minutes; OSError where locks do not work.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _acquire(file, path, grown, waiting)
            # The holder before removed its file: a lock on that locks nobody out.
            if _names(path, file):
                try:
                    yield
                finally:
                    path.unlink()
                return
        finally:
            os.close(file)


def _acquire(file: int, path: Path, grown: Callable[[], int], waiting: Callable[[], None]) -> None:
    if _try(file, path):
        return
    waiting()
    seen, since = grown(), time.monotonic()
    while not _try(file, path):
        if (size := grown()) != seen:
            seen, since = size, time.monotonic()
        elif time.monotonic() - since > STALLED_SECONDS:
            raise UserError(
                f"{path}: held by another process that has done nothing "
                f"for {STALLED_SECONDS:.0f} seconds"
            )
        time.sleep(_POLL_SECONDS)


def _try(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(error.errno, f"cannot be locked: {error.strerror}", str(path)) from None
    return True


def _names(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
