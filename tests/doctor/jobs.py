"""Jobs made up for the checks: all is well unless a test changes it."""

from dataclasses import replace
from typing import Any

from hpcddl.doctor.facts import Job, Machine, Rank, Slurm, Software, Storage

GIB = 1 << 30
V100 = ("Tesla V100-SXM2-32GB", 7, 0)
LIBRARY = "/opt/openmpi/lib/libmpi.so.40"


def healthy(nodes: int = 2, ranks: int = 4) -> Job:
    """`nodes` nodes of 40 cores and `ranks` V100, one rank on each, ten cores to a rank."""
    software = Software(
        versions={"hpcddl": "0.1.0", "torch": "2.10.0+cu126", "horovod": "0.28.1"},
        mpi="Open MPI v5.0.11",
        mpi_files=(LIBRARY,),
        horovod_mpi_file=LIBRARY,
        horovod_nccl=True,
        cuda="12.6",
        kernels=("sm_50", "sm_60", "sm_70", "sm_80", "sm_90"),
        gpus=(V100,) * ranks,
    )
    machine = Machine(
        cores=tuple(range(40)),
        node_cores=40,
        threads=40 // ranks,
        nvidia_devices=ranks,
        memory_bytes=300 * GIB,
        resident_bytes=GIB // 2,
        shm_free_bytes=100 * GIB,
    )
    storage = Storage(folder="/scratch/runs", filesystem="lustre")
    slurm = Slurm("23.11.4", "17", nodes, str(ranks), ("none", "pmi2", "pmix"))
    return Job(
        tuple(
            Rank(
                host=f"n{rank // ranks}",
                rank=rank,
                size=nodes * ranks,
                promised=nodes * ranks,
                node=rank // ranks * ranks,
                software=software,
                machine=machine,
                storage=storage,
                slurm=slurm,
            )
            for rank in range(nodes * ranks)
        )
    )


def change(job: Job, part: str = "", *, only: int | None = None, **values: Any) -> Job:
    """The job with other `values` in a part of every rank's facts, or of one rank's.

    A value that is a function is called with the rank.
    """

    def changed(rank: Rank) -> Rank:
        if only is not None and rank.rank != only:
            return rank
        found = {k: v(rank) if callable(v) else v for k, v in values.items()}
        if not part:
            return replace(rank, **found)
        return replace(rank, **{part: replace(getattr(rank, part), **found)})

    return Job(tuple(map(changed, job.ranks)))
