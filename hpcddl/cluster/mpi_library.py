"""Asks the MPI library of this process for what mpi4py does not tell."""

import ctypes
from pathlib import Path


def mapped(maps: str | None = None) -> tuple[str, ...]:
    """The files of the MPI libraries in this process, or in the text of a /proc/PID/maps."""
    lines = (Path("/proc/self/maps").read_text() if maps is None else maps).splitlines()
    return tuple(sorted({line.split()[-1] for line in lines if "/libmpi.so" in line}))


def cuda_aware() -> bool:
    """Whether MPI says that it can send from GPU memory (an extension of Open MPI)."""
    return any(
        bool(getattr(ctypes.CDLL(path), "MPIX_Query_cuda_support", int)()) for path in mapped()
    )
