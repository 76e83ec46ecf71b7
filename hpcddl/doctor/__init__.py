"""What `hpcddl doctor` checks: facts of every rank (facts.py), and a verdict on each."""

from collections.abc import Callable

from hpcddl.doctor import launcher, libraries, resources
from hpcddl.doctor.facts import Job
from hpcddl.doctor.finding import Finding

CHECKS: dict[str, Callable[[Job], Finding]] = {
    "libraries": libraries.imports,
    "versions": libraries.same,
    "ranks": launcher.ranks,
    "nodes": launcher.nodes,
    "MPI": libraries.mpi,
    "MPI threads": libraries.thread_multiple,
    "Horovod": libraries.horovod,
    "GPUs": launcher.gpus,
    "GPU kernels": libraries.kernels,
    "GPU to GPU": libraries.device_buffers,
    "cores": launcher.cores,
    "threads": launcher.threads,
    "memory": resources.memory,
    "/dev/shm": resources.shared_memory,
    "locked memory": resources.locked_memory,
    "open files": resources.open_files,
    "run folder": resources.run_folder,
    "file locks": resources.locks,
    "clocks": resources.clocks,
    "Slurm": launcher.slurm,
}


def examine(job: Job) -> dict[str, Finding]:
    """The finding of every check, in the table's order."""
    return {name: check(job) for name, check in CHECKS.items()}
