"""The facts of a job, gathered on its ranks: plain data, which tests can invent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcddl.cluster.cores import Cores


@dataclass(frozen=True)
class Software:
    """The libraries that one rank has loaded."""

    versions: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Library -> why it cannot be imported."""
    mpi: str = ""
    """As the library names itself: Open MPI v5.0.11."""
    mpi_start: str = ""
    """Whether MPI looks for libfabric's networks when it starts, and why."""
    mpi_files: tuple[str, ...] = ()
    """The MPI libraries in this process: one, if all is well."""
    horovod_mpi_file: str = ""
    """The one that the linker finds for Horovod alone; empty where it cannot be asked."""
    thread_multiple: bool = True
    cuda_aware: bool = False
    horovod_nccl: bool = False
    cuda: str = ""
    """The CUDA version that torch was built for; empty for a CPU build."""
    kernels: tuple[str, ...] = ()
    """The architectures torch was compiled for: sm_70, compute_90."""
    gpus: tuple[tuple[str, int, int], ...] = ()
    """Name and compute capability of each GPU that torch sees."""


@dataclass(frozen=True)
class Machine:
    """What one rank may use of its node."""

    cores: Cores = ()
    node_cores: int = 0
    """All that are online, whether or not this rank may run on them."""
    threads: int | None = None
    """OMP_NUM_THREADS, if it is set."""
    nvidia_devices: int = 0
    """GPUs that the driver shows under /dev."""
    memory_bytes: int = 0
    """That the ranks of this node may use together: free memory, or the job's limit if lower."""
    resident_bytes: int = 0
    """That this rank holds with all libraries loaded."""
    shm_free_bytes: int = 0
    infiniband_devices: int = 0
    lockable_bytes: int | None = None
    """Memory that may be pinned (ulimit -l); None: any amount."""
    open_files: int | None = None
    """That a process may have open at once (ulimit -n); None: any number."""


@dataclass(frozen=True)
class Storage:
    """The folder of the runs, seen from one rank."""

    folder: str = ""
    filesystem: str = ""
    """Its type: ext4, nfs4, lustre."""
    fault: str = ""
    """Why the rank cannot write there; empty if it can."""
    shared: bool = True
    """Whether it holds what rank 0 has written there."""
    locks: bool = True
    """Whether files there can be locked."""


@dataclass(frozen=True)
class Slurm:
    """What Slurm says; only rank 0 calls its commands."""

    version: str = ""
    """Empty where srun is not on PATH, or has no cluster."""
    job: str = ""
    """The job's number; empty outside of a job."""
    nodes: int = 0
    """Nodes of the job; 0 outside of one."""
    gpus: str = ""
    """Given to the job on this node, as Slurm counts them; empty when none were asked for."""
    mpi_types: tuple[str, ...] = ()
    """What srun --mpi offers."""


@dataclass(frozen=True)
class Rank:
    """All facts of one rank."""

    host: str = ""
    rank: int = 0
    size: int = 1
    """Ranks that MPI joined."""
    promised: int | None = None
    """Ranks that the launcher says it started."""
    node: int = 0
    """The lowest rank of its node."""
    clock_seconds: float = 0.0
    """How far its clock is ahead of rank 0's, with at most ..."""
    clock_error_seconds: float = 0.0
    """... this error."""
    software: Software = field(default_factory=Software)
    machine: Machine = field(default_factory=Machine)
    storage: Storage | None = None
    """None where MPI does not load: nothing is tried without the other ranks."""
    slurm: Slurm = field(default_factory=Slurm)


@dataclass(frozen=True)
class Job:
    """The facts of all ranks, in their order."""

    ranks: tuple[Rank, ...]

    @property
    def first(self) -> Rank:
        """Rank 0, used where all ranks say the same."""
        return self.ranks[0]

    @property
    def nodes(self) -> Iterator[list[Rank]]:
        """The ranks of each node."""
        for leader in sorted({one.node for one in self.ranks}):
            yield [one for one in self.ranks if one.node == leader]
