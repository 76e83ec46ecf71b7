"""Checks of what is installed: does it load, and do its parts fit each other and the GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hpcddl.doctor.facts import Job
from hpcddl.doctor.finding import Finding, ok, worst

MENDS = {
    "mpi4py": "load the MPI module it was built with, or make setup",
    "horovod": "bash jobs/build_horovod.sh --force, after every change of torch or MPI",
}


def imports(job: Job) -> Finding:
    """Whether every library loads on every rank."""
    for one in job.ranks:
        for name, why in one.software.broken.items():
            mend = MENDS.get(name, "make setup")
            return Finding("fault", f"{name} does not load on {one.host}: {why}", mend)
    return ok("all load")


def same(job: Job) -> Finding:
    """Whether all ranks run the same versions of everything."""
    for one in job.ranks:
        ours, theirs = job.first.software, one.software
        pairs = {**ours.versions, "MPI": ours.mpi}, {**theirs.versions, "MPI": theirs.mpi}
        for name in pairs[0].keys() & pairs[1].keys():
            if pairs[0][name] != pairs[1][name]:
                return Finding(
                    "fault",
                    f"{name} is {pairs[0][name]} on {job.first.host}, "
                    f"{pairs[1][name]} on {one.host}",
                    "one environment on a disk that all nodes share, and no modules in .bashrc",
                )
    return ok(f"the same on all {job.first.size} ranks" if job.first.size > 1 else "one rank")


def mpi(job: Job) -> Finding:
    """Whether mpi4py and Horovod use one MPI library."""
    rebuild = "bash jobs/build_horovod.sh --force, with the MPI of mpi4py first on PATH"
    for one in job.ranks:
        files, horovod = one.software.mpi_files, one.software.horovod_mpi_file
        if len(files) > 1:
            return Finding(
                "fault", f"two MPI libraries in one process: {', '.join(files)}", rebuild
            )
        if files and horovod and not _same_file(files[0], horovod):
            return Finding("fault", f"mpi4py's MPI is {files[0]}, Horovod's is {horovod}", rebuild)
    first = job.first.software
    found = f"{first.mpi or 'unknown'} ({', '.join(first.mpi_files) or 'no file found'})"
    return ok(f"{found}; {first.mpi_start}" if first.mpi_start else found)


def _same_file(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()


def thread_multiple(job: Job) -> Finding:
    """Whether several threads may call MPI, as Horovod's does beside the weight exchange."""
    if "mpi4py" in job.first.software.broken or job.first.software.thread_multiple:
        return ok("MPI has THREAD_MULTIPLE" if job.first.software.mpi else "no MPI to ask")
    mend = "use an MPI with thread support (Open MPI 5 always has it), and unset MPI4PY_RC_*"
    return Finding("fault" if job.first.size > 1 else "warn", "MPI lacks THREAD_MULTIPLE", mend)


def horovod(job: Job) -> Finding:
    """Whether Horovod can average gradients on a GPU."""
    for one in job.ranks:
        found = one.software
        if found.gpus and "horovod" not in found.broken and not found.horovod_nccl:
            return Finding(
                "fault",
                f"Horovod is built without NCCL, but {one.host} has GPUs: SSGD cannot run there",
                "bash jobs/build_horovod.sh --nccl --force (DPSGD and local SGD do without)",
            )
    version = job.first.software.versions.get("horovod", "does not load")
    return ok(f"{version}, with {'MPI and NCCL' if job.first.software.horovod_nccl else 'MPI'}")


def kernels(job: Job) -> Finding:
    """Whether torch was compiled for the GPUs."""
    return worst(
        _kernels(name, (major, minor), one.software.kernels)
        for one in job.ranks
        for name, major, minor in one.software.gpus or (("", 0, 0),)
    )


def _kernels(name: str, capability: tuple[int, int], built: tuple[str, ...]) -> Finding:
    if not name:
        return ok("no GPU")
    number = "{}{}".format(*capability)
    if runs_on(capability, built):
        return ok(f"torch has kernels for {name} (sm_{number})")
    mend = (
        "TORCH=cu126 make setup, the only builds with sm_70"
        if number == "70"
        else ("install a torch build that names it in torch.cuda.get_arch_list()")
    )
    return Finding(
        "fault", f"torch has no kernels for {name} (sm_{number}): {' '.join(built)}", mend
    )


def runs_on(capability: tuple[int, int], built: Iterable[str]) -> bool:
    """Whether code for one of the architectures `built` runs on a GPU.

    sm_XY runs on the same X with an equal or higher Y; compute_XY (PTX) is compiled for any later
    one; either with the suffix a runs on exactly XY (CUDA C++ programming guide, 3.1.2 - 3.1.4).
    """
    for name in built:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name)
        if not found:
            continue
        version = int(found[2]), int(found[3])
        if version == capability:
            return True
        if found[4] or version > capability:
            continue
        if found[1] == "compute" or version[0] == capability[0]:
            return True
    return False


def device_buffers(job: Job) -> Finding:
    """How weights travel from GPU to GPU."""
    if not job.first.software.gpus:
        return ok("no GPU")
    if job.first.software.cuda_aware:
        return ok("MPI is CUDA-aware: weights go from GPU to GPU")
    return ok("MPI is not CUDA-aware: weights are staged in pinned host memory, beside the step")
