"""Facts that need several ranks: how far their clocks differ, and what disk they share."""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpcddl.common.leftovers import remove_leftovers, temporary_path
from hpcddl.doctor.facts import Storage

if TYPE_CHECKING:
    from mpi4py import MPI

_EXCHANGES = 10
# A network file system may show a new file late.
_PATIENCE_SECONDS = 5.0
_POLL_SECONDS = 0.1


def clocks(comm: MPI.Intracomm) -> tuple[float, float]:
    """Measures how far this rank's clock is ahead of rank 0's, and the error. Collective.

    In seconds. An answer is taken to be given half a round trip after the question; the fastest
    of ten questions counts.
    """
    if comm.rank == 0:
        offsets = [(0.0, 0.0)]
        for rank in range(1, comm.size):
            trips = []
            for _ in range(_EXCHANGES):
                asked = time.time()
                comm.send(None, rank)
                answer = comm.recv(source=rank)
                half = (time.time() - asked) / 2
                trips.append((half, answer - asked - half))
            half, ahead = min(trips)
            offsets.append((ahead, half))
    else:
        offsets = None
        for _ in range(_EXCHANGES):
            comm.recv(source=0)
            comm.send(time.time(), 0)
    return comm.scatter(offsets)


def storage(comm: MPI.Intracomm, folder: Path) -> Storage:
    """Tests that all ranks can write in `folder` and see what rank 0 writes. Collective.

    If the folder does not exist yet, its nearest existing parent is tested. No file is left.
    """
    folder = comm.bcast(_existing(folder.absolute()))
    kind = folder / "hpcddl-doctor"
    mark = folder / comm.bcast(temporary_path(kind).name)
    own = temporary_path(mark)
    if comm.rank == 0:
        remove_leftovers(kind)
    fault, locks, written = "", False, False
    try:
        locks = _locked(own)
        if comm.rank == 0:
            mark.touch()
            written = True
    except OSError as error:
        fault = error.strerror or str(error)
    # Where rank 0 cannot write there is nothing to wait for.
    shared = not comm.bcast(written) or _appears(mark)
    comm.Barrier()
    with suppress(OSError):  # a file that could not be made cannot be removed
        own.unlink()
        if comm.rank == 0:
            mark.unlink()
    filesystem = filesystem_of(folder, Path("/proc/self/mountinfo").read_text())
    return Storage(str(folder), filesystem, fault, shared, locks)


def filesystem_of(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds `path`, from the text of a /proc/PID/mountinfo."""
    found = {}
    for line in mountinfo.splitlines():
        left, right = line.split(" - ", 1)
        # Octal for what would end a field: \040 is a space.
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split()[4])
        found[Path(place)] = right.split()[0]  # a later mount hides an earlier one
    real = path.resolve()
    return next((found[one] for one in (real, *real.parents) if one in found), "unknown")


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _locked(path: Path) -> bool:
    """Makes the file and says whether it can be locked, as HDF5 does and as runs are."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)  # on NFS the two are one lock with two owners
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _appears(path: Path) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True
