"""What a rank may use of its node, and what Slurm says there."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hpcddl.doctor.facts import Machine, Slurm

_PATIENCE_SECONDS = 30


def machine() -> Machine:
    """Looks at what this process may use of its node, now."""
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    limit = memory_limit_bytes(Path("/proc/self/cgroup").read_text(), Path("/sys/fs/cgroup"))
    available = 1024 * _number("/proc/meminfo", "MemAvailable")
    return Machine(
        cores=tuple(sorted(os.sched_getaffinity(0))),
        node_cores=os.cpu_count() or 1,
        threads=int(threads) if threads.isdecimal() else None,
        nvidia_devices=_count(Path("/dev"), r"nvidia\d+"),
        memory_bytes=min(available, limit) if limit is not None else available,
        resident_bytes=1024 * _number("/proc/self/status", "VmRSS"),
        shm_free_bytes=_free_bytes(Path("/dev/shm")),
        infiniband_devices=_count(Path("/sys/class/infiniband"), r".*"),
        lockable_bytes=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE),
    )


def _limit(which: int) -> int | None:
    """Reads a limit of this process (ulimit); None where there is none."""
    limit = resource.getrlimit(which)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def memory_limit_bytes(membership: str, root: Path) -> int | None:
    """The lowest limit of a process's control groups, from its /proc/PID/cgroup; None without one.

    Version 2 has one line `0::PATH` and files memory.max; version 1 a line `N:memory:PATH` and
    files memory.limit_in_bytes below `root`/memory. A parent's limit holds for its children.
    """
    limits = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # the root has none; "max"
                limits.append(int((folder / name).read_text()))
            if folder == base:
                break
    return min(limits, default=None)


def slurm(environment: Mapping[str, str], ask: bool) -> Slurm:
    """The job from the environment; with `ask`, Slurm's version and launchers from its commands."""
    installed = ask and shutil.which("srun") is not None
    version = re.match(r"slurm\S* (\S+)", _output("srun", "--version") if installed else "")
    offered = _output("srun", "--mpi=list") if installed else ""
    return Slurm(
        version=version[1] if version else "",
        job=environment.get("SLURM_JOB_ID", ""),
        nodes=int(environment.get("SLURM_JOB_NUM_NODES", "0")),
        gpus=environment.get("SLURM_GPUS_ON_NODE", environment.get("SLURM_JOB_GPUS", "")),
        mpi_types=tuple(sorted(set(re.findall(r"\b(?:none|pmi2|cray\w*|pmix\w*)\b", offered)))),
    )


def _number(path: str, name: str) -> int:
    """Reads the number in a line `NAME: NUMBER kB`; 0 where there is no such line."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(path).read_text(), re.M)
    return int(found[1]) if found else 0


def _count(folder: Path, pattern: str) -> int:
    """Names in a folder, if there is one, that match."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sum(bool(re.fullmatch(pattern, name)) for name in names)


def _free_bytes(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _output(*words: str) -> str:
    """Runs a command; returns what it prints on both streams."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
