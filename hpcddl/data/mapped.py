"""Parts of files as arrays, mapped into memory without an open file for each.

Python's own mmap, and so numpy.memmap, keeps a file descriptor for as long as a map lives. A set of
many shards would take more than a process may have open (often 1,024).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,  # off_t
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value
# What file systems answer that cannot map.
_UNMAPPABLE = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)


def map_bytes(path: Path, offset: int, size: int) -> NDArray[np.uint8]:
    """Maps `size` bytes of a file from `offset` on: (size,), read-only, backed by the page cache.

    Where the file system cannot map, the bytes are read into memory.

    Raises:
        OSError: the file cannot be opened, is too short, or memory is at its end.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(file).st_size < offset + size:
            raise OSError(errno.EIO, f"ends before byte {offset + size}", str(path))
        begin = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset + size - begin
        # Private: some file systems refuse shared maps (FUSE with direct_io). Nobody writes here.
        address = _LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_PRIVATE, file, begin)
        if address == _FAILED:
            reason = ctypes.get_errno()
            if reason not in _UNMAPPABLE:
                raise OSError(reason, os.strerror(reason), str(path))
            return _read(file, offset, size)
    finally:
        os.close(file)
    buffer = (ctypes.c_uint8 * length).from_address(address)
    # Not at the end of the process, when threads may still read.
    weakref.finalize(buffer, _LIBC.munmap, address, length).atexit = False
    array = np.ctypeslib.as_array(buffer)[offset - begin :]
    array.flags.writeable = False
    return array


def _read(file: int, offset: int, size: int) -> NDArray[np.uint8]:
    array = np.empty(size, np.uint8)
    done = 0
    while done < size:
        got = os.preadv(file, [array.data[done:]], offset + done)
        if not got:
            raise OSError(errno.EIO, "became shorter while it was read")
        done += got
    array.flags.writeable = False
    return array
