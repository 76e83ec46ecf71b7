"""Asks one rank's libraries for their versions and abilities, broken ones included."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import hpcddl
from hpcddl.cluster import mpi_start
from hpcddl.cluster.mpi_library import cuda_aware, mapped
from hpcddl.doctor.facts import Software

# In this order: mpi4py's MPI must be the first in the process, as it is in training.
LIBRARIES = ("mpi4py.MPI", "numpy", "torch", "h5py", "horovod.torch")


def software() -> Software:
    """Imports every library, which starts MPI, and asks them."""
    found, broken = _imported(LIBRARIES)
    versions = {"hpcddl": hpcddl.__version__, "Python": platform.python_version()}
    for name in LIBRARIES:
        package = name.partition(".")[0]
        if name in found:
            versions[package] = getattr(found[name], "__version__", metadata.version(package))
    mpi, torch, horovod = (found.get(n) for n in ("mpi4py.MPI", "torch", "horovod.torch"))
    facts: dict[str, Any] = {"mpi_files": mapped()}
    if "Open MPI" in str(mpi and mpi.Get_library_version()):
        facts["mpi_start"] = mpi_start.describe(os.environ)
    if mpi:
        # Open MPI v5.0.11, package: ...; MPICH Version: 4.2.1 on the first of many lines
        facts["mpi"] = re.split(r"[,\n\0]", mpi.Get_library_version())[0].strip()
        facts["thread_multiple"] = mpi.Query_thread() >= mpi.THREAD_MULTIPLE
        facts["cuda_aware"] = cuda_aware()
    if torch:
        facts["cuda"] = torch.version.cuda or ""
        facts["kernels"] = tuple(torch.cuda.get_arch_list())
        facts["gpus"] = tuple(
            (torch.cuda.get_device_name(i), *torch.cuda.get_device_capability(i))
            for i in range(torch.cuda.device_count())
        )
    if horovod:
        facts["horovod_nccl"] = bool(horovod.nccl_built())
        facts["horovod_mpi_file"] = _linked_mpi(Path(horovod.mpi_ops.mpi_lib.__file__))
    return Software(versions=versions, broken=broken, **facts)


def _imported(names: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    found, broken = {}, {}
    for name in names:
        try:
            found[name] = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            # What a library raises whose own libraries are missing or do not fit.
            broken[name.partition(".")[0]] = str(error).partition("\n")[0]
    return found, broken


def _linked_mpi(library: Path) -> str:
    """Finds the MPI of a library by ldd: in this process another of that name may hide it."""
    try:
        done = subprocess.run(
            ["ldd", library], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"libmpi\.so\S* => (/\S+)", done.stdout)
    return str(Path(found[1]).resolve()) if found else ""
