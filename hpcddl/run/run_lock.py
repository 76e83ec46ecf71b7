"""One job at a time in a run directory, on file systems that nodes share.

RUN/.lock is locked by rank 0's process with fcntl: the kernel lets go of it when that process ends,
however it ends, so a killed job leaves no lock behind. Unlike flock's, such a lock belongs to the
process alone and not to its children; NFS passes it on to the server, Lustre (mounted with `flock`)
and GPFS to their lock managers. Where locks do not leave the node, or there are none, the second
job gets in. The file also names its holder, so the first one finds at its next checkpoint that it
no longer is, and ends without writing.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError

NAME = ".lock"


class RunLock:
    """The lock of one run directory; whoever holds it says who it is in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None
        self._holder = ""

    @property
    def taken(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def take(self) -> None:
        """Locks the folder, unless this object has done so before.

        Raises:
            UserError: another job has it (who, where); the folder cannot be written.
        """
        if self._file is not None:
            return
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
        if _is_held(file):
            holder = _describe(_read(file))
            os.close(file)
            raise UserError(f"--out {self.path.parent}: another job trains there: {holder}")
        self._file = file
        # The random part: a process id comes again, on another node or in another container.
        identity = {**_identity(), "token": os.urandom(8).hex()}
        self._holder = json.dumps(identity)
        self._write(self._holder)

    def check(self) -> None:
        """Checks that this is still the holder, as it is wherever locks work.

        Raises:
            UserError: another job has begun here.
        """
        assert self._file is not None
        # Not through another handle: closing that one would let go of the lock.
        found = _read(self._file)
        if found != self._holder:
            raise UserError(
                f"--out {self.path.parent}: another job has begun there: {_describe(found)}; this "
                "one ends without writing (locks of this file system do not reach other nodes)"
            )

    def close(self) -> None:
        """Lets go of the lock, and of the name in it."""
        if self._file is None:
            return
        if _read(self._file) == self._holder:
            self._write("")
        os.close(self._file)
        self._file = None

    def _write(self, text: str) -> None:
        assert self._file is not None
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)
            os.fsync(self._file)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None


def reaches_all_nodes(path: Path, world: World) -> bool:
    """Whether the lock `path`, which rank 0 holds, is held for all other nodes too. Collective.

    Raises:
        UserError: the file is not there on some node (AgreedError).
    """

    def look() -> bool:
        if world.node.rank or not world.rank:
            return True
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            raise UserError(
                f"--out {path.parent}: not seen from {socket.gethostname()}; must be a folder "
                "that all nodes share"
            ) from None
        try:
            return _is_held(file)
        finally:
            os.close(file)

    return all(world.comm.allgather(world.together(look)))


def _identity() -> dict[str, str]:
    job = os.environ.get("SLURM_JOB_ID", "")
    return {"host": socket.gethostname(), "pid": str(os.getpid()), "job": job}


def _describe(text: str) -> str:
    """Who holds a lock, by what it wrote there."""
    try:
        holder = json.loads(text)
        job = f", Slurm job {holder['job']}" if holder["job"] else ""
        return f"process {holder['pid']} on {holder['host']}{job}"
    except (ValueError, KeyError, TypeError):
        return "it does not say who it is"


def _read(file: int) -> str:
    return os.pread(file, 4096, 0).decode(errors="replace")


def _is_held(file: int) -> bool:
    """Whether another process has locked `file`; if not, this one has now, where locks work."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return True
    except OSError:
        pass  # no locks on this file system: `check` remains
    return False
