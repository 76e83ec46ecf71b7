"""Every check of the doctor against jobs made up: what it finds, and what it advises."""

import pytest

from hpcddl.doctor import CHECKS, examine
from hpcddl.doctor.facts import Job, Rank
from hpcddl.doctor.libraries import runs_on
from tests.doctor.jobs import GIB, LIBRARY, change, healthy

OTHER = "/usr/lib/libmpi.so.40"
JOB = healthy()
NO_GPU = change(JOB, "software", gpus=(), cuda="")
ALONE = Job((Rank(machine=JOB.first.machine, storage=JOB.first.storage),))


def bound(width: int, step: int) -> Job:
    """Each rank of a node on `width` cores, `step` after those of the rank before."""
    return change(
        JOB,
        "machine",
        cores=lambda one: tuple(range((one.rank % 4) * step, (one.rank % 4) * step + width)),
    )


# (check, job, verdict, words of what was found, words of the mend)
CASES = [
    ("libraries", change(JOB, "software", only=5, broken={"horovod": "undefined symbol"}),
     "fault", "horovod does not load on n1: undefined symbol", "build_horovod.sh --force"),
    ("versions", change(JOB, "software", only=5, mpi="Open MPI v4.1.4"),
     "fault", "MPI is Open MPI v5.0.11 on n0, Open MPI v4.1.4 on n1", "one environment"),
    ("ranks", change(JOB, size=1), "fault", "8 ranks were started, but MPI joined 1", "pmix"),
    ("ranks", ALONE, "ok", "no launcher", ""),
    ("nodes", change(JOB, node=0), "fault", "all 8 ranks are on 1 of the job's 2 nodes",
     "no --oversubscribe"),
    ("nodes", change(JOB, node=lambda one: 0 if one.rank < 6 else 6), "warn", "from 2 to 6 ranks",
     "ppr:N:node"),
    ("MPI", change(JOB, "software", only=1, mpi_files=(LIBRARY, OTHER)), "fault",
     f"two MPI libraries in one process: {LIBRARY}, {OTHER}", "build_horovod.sh --force"),
    ("MPI", change(JOB, "software", horovod_mpi_file=OTHER), "fault",
     f"mpi4py's MPI is {LIBRARY}, Horovod's is {OTHER}", "build_horovod.sh --force"),
    ("MPI", change(JOB, "software", horovod_mpi_file=""), "ok", "Open MPI v5.0.11", ""),
    ("MPI threads", change(JOB, "software", thread_multiple=False), "fault",
     "MPI lacks THREAD_MULTIPLE", "thread support"),
    ("MPI threads", change(ALONE, "software", thread_multiple=False), "warn",
     "MPI lacks THREAD_MULTIPLE", "thread support"),
    ("Horovod", change(JOB, "software", horovod_nccl=False), "fault", "built without NCCL",
     "build_horovod.sh --nccl --force"),
    ("Horovod", change(NO_GPU, "software", horovod_nccl=False), "ok", "0.28.1, with MPI", ""),
    ("GPUs", change(JOB, "software", gpus=JOB.first.software.gpus[:1]), "fault",
     "4 ranks on n0, and a rank sees 1 GPU", "--gres=gpu:N"),
    ("GPUs", change(JOB, "software", gpus=JOB.first.software.gpus * 2), "warn",
     "4 of 8 x Tesla V100-SXM2-32GB used", "start 8 ranks per node"),
    ("GPUs", NO_GPU, "fault", "n0 has GPUs, but torch 2.10.0+cu126 is a CPU build", "TORCH=cu126"),
    ("GPUs", change(JOB, "software", gpus=()), "fault", "torch for CUDA 12.6 sees none",
     "nvidia-smi"),
    ("GPUs", change(change(NO_GPU, "machine", nvidia_devices=0), "slurm", gpus=""), "ok",
     "runs on the CPU", ""),
    ("GPU kernels", change(JOB, "software", kernels=("sm_75", "sm_80", "compute_120")), "fault",
     "no kernels for Tesla V100-SXM2-32GB (sm_70)", "TORCH=cu126"),
    ("GPU to GPU", change(JOB, "software", cuda_aware=True), "ok", "is CUDA-aware", ""),
    ("GPU to GPU", JOB, "ok", "staged in pinned host memory", ""),
    ("cores", bound(1, 0), "fault", "4 ranks on cores 0 of n0's 40: they share them while others",
     "--bind-to none"),
    ("cores", change(JOB, "machine", cores=lambda one: ((0,), (0,), (1, 2), (3, 4))[one.rank % 4]),
     "fault", "4 ranks on cores 0-4 of n0's 40: some ranks share one", "--bind-to none"),
    ("cores", bound(1, 1), "warn", "on cores 0-3 of n0's 40: 1 each", "--cpus-per-task"),
    ("cores", bound(10, 10), "ok", "4 ranks on cores 0-39 of n0's 40: 10 each", ""),
    ("cores", change(JOB, "machine", cores=(0, 1), node_cores=2), "warn", "less than one each",
     "at most 2 ranks"),
    ("threads", change(JOB, "machine", threads=40), "warn", "160 threads of 4 ranks on 40 cores",
     "OMP_NUM_THREADS=10"),
    ("threads", change(JOB, "machine", threads=None), "ok", "is not set", ""),
    ("memory", change(JOB, "machine", only=7, memory_bytes=GIB), "fault",
     "0.2 GiB for each rank of n1; the libraries alone take 0.5 GiB", "--mem=0"),
    ("memory", change(JOB, "machine", memory_bytes=3 * GIB), "warn", "0.8 GiB for each", "--mem=0"),
    ("/dev/shm", change(JOB, "machine", shm_free_bytes=63 << 20), "fault",
     "63 MiB free in n0's /dev/shm, less than 16 MiB for each of 4 ranks", "--shm-size=1g"),
    ("/dev/shm", change(NO_GPU, "machine", shm_free_bytes=0), "warn", "0 MiB free", "sm_segment"),
    ("locked memory", change(JOB, "machine", infiniband_devices=1, lockable_bytes=65536), "warn",
     "only 64 KiB may be pinned", "ulimit -l unlimited"),
    ("locked memory", change(JOB, "machine", infiniband_devices=1), "ok", "all it needs", ""),
    ("open files", change(JOB, "machine", only=3, open_files=200), "warn",
     "at most 200 on n0 (ulimit -n); 264 may be needed", "ulimit -n 528"),
    ("open files", change(JOB, "machine", open_files=1024), "ok", "at most 1,024", ""),
    ("open files", JOB, "ok", "any number", ""),
    ("run folder", change(JOB, "storage", only=4, shared=False), "fault",
     "/scratch/runs of rank 0 on n0 is not that of rank 4 on n1", "all nodes share"),
    ("run folder", change(JOB, "storage", only=4, fault="Read-only file system"), "fault",
     "n1 cannot write to /scratch/runs: Read-only file system", "every node can write"),
    ("run folder", change(JOB, storage=None), "ok", "not tried", ""),
    ("file locks", change(JOB, "storage", only=4, locks=False), "warn",
     "files in /scratch/runs (lustre) cannot be locked", "HDF5_USE_FILE_LOCKING=FALSE"),
    ("clocks", change(JOB, only=4, clock_seconds=-7.5, clock_error_seconds=0.25), "warn",
     "n1's clock is 7.500 s apart", "chrony"),
    ("clocks", change(JOB, only=4, clock_seconds=1.5, clock_error_seconds=0.75), "ok",
     "1.500 s apart at most (error 0.750 s)", ""),
    ("Slurm", change(JOB, "slurm", mpi_types=("none", "pmi2")), "warn", "srun --mpi: none, pmi2",
     "start the ranks with mpirun"),
    ("Slurm", change(JOB, "slurm", version=""), "ok", "none here", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "job", "verdict", "found", "mend"), CASES)
def test_finding(name: str, job: Job, verdict: str, found: str, mend: str) -> None:
    finding = CHECKS[name](job)
    assert finding.verdict == verdict
    assert found in finding.found
    assert mend in finding.mend
    assert bool(finding.mend) == (verdict != "ok")
    assert "\n" not in finding.found + finding.mend


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_can_conclude_otherwise(name: str) -> None:
    """A healthy job is well in all respects, and the table above spoils each (but for one)."""
    assert CHECKS[name](JOB).verdict == "ok"
    spoilt = {case for case, _, verdict, _, _ in CASES if verdict != "ok"}
    assert name in spoilt or name == "GPU to GPU"  # which only tells which way weights go


def test_one_fault_does_not_hide_another() -> None:
    job = change(change(JOB, size=1), "machine", cores=(0,))
    faults = {name for name, one in examine(job).items() if one.verdict == "fault"}
    assert {"ranks", "cores"} <= faults


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (("sm_70",), (7, 0), True),
        (("sm_70",), (7, 5), True),  # a binary runs on a later one of its major version
        (("sm_75",), (7, 0), False),
        (("sm_70",), (8, 0), False),
        (("compute_70",), (8, 0), True),  # PTX is compiled for any later one
        (("compute_80",), (7, 0), False),
        (("sm_90a",), (9, 0), True),
        (("sm_90a",), (10, 0), False),
        (("compute_90a",), (10, 0), False),
        (("sm_100", "sm_120"), (12, 0), True),
        ((), (7, 0), False),
        (("gfx90a",), (9, 0), False),
    ],
)
def test_kernels_run_on(built: tuple[str, ...], capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(capability, built) == runs
