"""Compares over all ranks what must be the same on each of them, before they depend on it."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

import hpcddl
from hpcddl.common.yaml_file import shown

Facts = Mapping[str, object]

# Variables by which libraries compute other numbers. Not the number of threads: nodes may have
# different numbers of cores, and it changes only the order of sums.
_CHANGE_NUMBERS = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
_ABSENT = "not there"


def difference(comm: MPI.Intracomm, facts: Facts) -> str | None:
    """Says in one line which rank has other `facts` than rank 0, and where; None of equal ones.

    Collective. Values are compared as they are printed.
    """
    mine = {key: str(value) for key, value in facts.items()}
    digest = hashlib.sha256(repr(sorted(mine.items())).encode()).digest()
    if len(set(comm.allgather(digest))) == 1:
        return None
    everyone = comm.allgather((socket.gethostname(), mine))
    host, first = everyone[0]
    for rank, (its_host, other) in enumerate(everyone):
        for key in first | other:
            here, there = (shown(which.get(key, _ABSENT), 80) for which in (first, other))
            if first.get(key) != other.get(key):
                return (
                    f"rank {rank} on {its_host}: {key}: {there}, but on rank 0 ({host}): {here}; "
                    "must be the same on all ranks"
                )
    return None


def of_this_process(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the software and the environment may give other numbers, or other messages."""
    variables = {name: environment.get(name, "not set") for name in _CHANGE_NUMBERS}
    return {
        "version of hpcddl": hpcddl.__version__,
        "source code of hpcddl (checksum)": code_checksum(),
        "version of python": platform.python_version(),
        "version of torch": torch.__version__,
        "version of numpy": np.__version__,
        "default dtype of torch": str(torch.get_default_dtype()),
        "deterministic algorithms of torch": str(torch.are_deterministic_algorithms_enabled()),
        "precision of products of torch": torch.get_float32_matmul_precision(),
        **variables,
    }


@cache
def code_checksum(package: Path = Path(hpcddl.__file__).parent) -> str:
    """The first digits of the SHA-256 of all Python files in `package`, names included."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(package):
        folders.sort()
        for name in sorted(name for name in names if name.endswith(".py")):
            path = Path(folder, name)
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:12]
