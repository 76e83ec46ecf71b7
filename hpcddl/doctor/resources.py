"""Checks of memory, disks and clocks."""

from __future__ import annotations

from hpcddl.doctor.facts import Job, Rank
from hpcddl.doctor.finding import Finding, counted, ok, worst

# What Open MPI 5.0.11 asks for in /dev/shm for each rank; with less it goes a slower way.
SEGMENT_BYTES = 16 << 20
CLOCK_SECONDS = 1.0
# A rank keeps a few dozen files open, and its sockets to other ranks. Shards stay closed.
OPEN_FILES = 256


def memory(job: Job) -> Finding:
    """Whether a rank's part of the memory is well above what the libraries alone take."""
    return worst([_memory(node) for node in job.nodes])


def _memory(node: list[Rank]) -> Finding:
    part = min(one.machine.memory_bytes for one in node) / len(node)
    libraries = max(one.machine.resident_bytes for one in node)
    found = f"{_gib(part)} for each rank of {node[0].host}; the libraries alone take "
    found += f"{_gib(libraries)}"
    mend = "ask for the nodes' memory (sbatch --mem=0), or start fewer ranks on a node"
    if part < 2 * libraries:
        return Finding("fault" if part < libraries else "warn", found, mend)
    return ok(found)


def locked_memory(job: Job) -> Finding:
    """Whether InfiniBand, where there is some, may pin the memory it sends from."""
    for one in job.ranks:
        limit = one.machine.lockable_bytes
        if one.machine.infiniband_devices and limit is not None:
            return Finding(
                "warn",
                f"{one.host} has InfiniBand, but only {limit >> 10} KiB may be pinned (ulimit -l)",
                "ulimit -l unlimited; under Slurm PropagateResourceLimitsExcept=MEMLOCK",
            )
    present = any(one.machine.infiniband_devices for one in job.ranks)
    return ok("InfiniBand may pin all it needs" if present else "no InfiniBand")


def open_files(job: Job) -> Finding:
    """Whether a rank may have enough files and sockets open."""
    limits = [(one.machine.open_files, one.host) for one in job.ranks]
    known = [(limit, host) for limit, host in limits if limit is not None]
    if not known:
        return ok("any number")
    least, host = min(known)
    found = f"at most {least:,} on {host} (ulimit -n)"
    wanted = OPEN_FILES + len(job.ranks)
    if least < wanted:
        return Finding("warn", f"{found}; {wanted:,} may be needed", f"ulimit -n {2 * wanted}")
    return ok(found)


def shared_memory(job: Job) -> Finding:
    """Whether /dev/shm has room for the messages between the ranks of a node."""
    return worst([_shared_memory(node) for node in job.nodes])


def _shared_memory(node: list[Rank]) -> Finding:
    free = min(one.machine.shm_free_bytes for one in node)
    found = f"{free >> 20} MiB free in {node[0].host}'s /dev/shm"
    if free < SEGMENT_BYTES * len(node):
        return Finding(
            # NCCL, which the ranks of a node with GPUs use, does not start without.
            "fault" if node[0].software.gpus else "warn",
            f"{found}, less than 16 MiB for each of {counted(len(node), 'rank')}",
            "rm /dev/shm/sm_segment.* of dead jobs; in a container --shm-size=1g or --ipc=host",
        )
    return ok(found)


def run_folder(job: Job) -> Finding:
    """Whether all ranks can write to the run folder, and see there what others wrote."""
    first = job.first
    for one in job.ranks:
        if one.storage and one.storage.fault:
            return Finding(
                "fault",
                f"{one.host} cannot write to {one.storage.folder}: {one.storage.fault}",
                "--out must be a folder that every node can write to",
            )
    for one in job.ranks:
        if one.storage and not one.storage.shared:
            return Finding(
                "fault",
                f"{one.storage.folder} of rank 0 on {first.host} is not that of rank {one.rank} on "
                f"{one.host}: checkpoints would lie in pieces",
                "--out must be on a file system that all nodes share",
            )
    if not first.storage:
        return ok("not tried without MPI")
    text = f"{first.storage.folder} ({first.storage.filesystem}) can be written to"
    return ok(text + (" and is the same on all ranks" if first.size > 1 else ""))


def locks(job: Job) -> Finding:
    """Whether files can be locked in the run folder; by locks a second job is refused.

    Shards are opened without HDF5's locks, whatever HDF5_USE_FILE_LOCKING says.
    """
    for one in job.ranks:
        if one.storage and not one.storage.fault and not one.storage.locks:
            return Finding(
                "warn",
                f"files in {one.storage.folder} ({one.storage.filesystem}) cannot be locked",
                "one job at a time in a run folder, which cannot be locked; for other programs "
                "export HDF5_USE_FILE_LOCKING=FALSE (hpcddl's shards need no locks)",
            )
    if not job.first.storage:
        return ok("not tried without MPI")
    return ok(f"files on {job.first.storage.filesystem} can be locked; shards need no locks")


def clocks(job: Job) -> Finding:
    """Whether the nodes agree on the time, by which logs and checkpoints are compared."""
    furthest = max(job.ranks, key=lambda one: abs(one.clock_seconds))
    apart, error = abs(furthest.clock_seconds), furthest.clock_error_seconds
    if len(list(job.nodes)) == 1:
        return ok("one node, one clock")
    found = f"{apart:.3f} s apart at most (error {error:.3f} s)"
    if apart - error > CLOCK_SECONDS:
        return Finding(
            "warn", f"{furthest.host}'s clock is {found}", "ask for time synchronisation (chrony)"
        )
    return ok(found)


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
