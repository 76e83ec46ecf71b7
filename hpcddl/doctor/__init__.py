"""What `hpcddl doctor` checks: facts of every rank (facts.py), and a verdict on each."""

from collections.abc import Callable

from hpcddl.doctor import launch, libraries, resources
from hpcddl.doctor.facts import Job
from hpcddl.doctor.finding import Finding

CHECKS: dict[str, Callable[[Job], Finding]] = {
    "libraries": libraries.imports,
    "versions": libraries.same,
    "ranks": launch.ranks,
    "nodes": launch.nodes,
    "MPI": libraries.mpi,
    "MPI threads": libraries.thread_multiple,
    "Horovod": libraries.horovod,
    "GPUs": launch.gpus,
    "GPU kernels": libraries.kernels,
    "GPU to GPU": libraries.device_buffers,
    "cores": launch.cores,
    "threads": launch.threads,
    "memory": resources.memory,
    "/dev/shm": resources.shared_memory,
    "locked memory": resources.locked_memory,
    "run folder": resources.run_folder,
    "file locks": resources.locks,
    "clocks": resources.clocks,
    "Slurm": launch.slurm,
}


def examine(job: Job) -> dict[str, Finding]:
    """The finding of every check, in the table's order."""
    return {name: check(job) for name, check in CHECKS.items()}
