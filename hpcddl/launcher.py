"""What a launcher says about a job, asked without starting MPI."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping


def promised_size(environment: Mapping[str, str]) -> int | None:
    """The number of ranks that the launcher says it started, or None when it does not say.

    Under mpirun the SLURM_* variables describe mpirun's own daemons, so Slurm's word counts
    only in a job step that no other launcher shows in.
    """
    for variable in ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"):
        if variable in environment:
            return int(environment[variable])
    if "SLURM_STEP_ID" in environment:
        return int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    return None


def promised_rank(environment: Mapping[str, str]) -> int:
    """This process's number among those that the launcher started; 0 when it does not say."""
    for variable in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "PMI_RANK"):
        if variable in environment:
            return int(environment[variable])
    return int(environment.get("SLURM_PROCID", "0")) if "SLURM_STEP_ID" in environment else 0


def wait_politely(environment: MutableMapping[str, str]) -> None:
    """Before MPI starts: where cores are scarce, Open MPI shall not spin while it waits.

    Horovod's thread waits inside MPI beside the one that computes, so every rank needs two cores
    or a wait that yields. The user's own choice stands.
    """
    ranks = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "0"))
    if len(os.sched_getaffinity(0)) < 2 * ranks:
        environment.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
