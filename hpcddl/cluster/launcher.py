"""What a launcher says about a job, asked without starting MPI."""

from __future__ import annotations

from collections.abc import Mapping


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


def one_node(environment: Mapping[str, str]) -> bool:
    """Whether the launcher says that all ranks are on this node; False where it does not say."""
    for size, here in (
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ):
        if size in environment:
            return environment[size] == environment.get(here)
    if "SLURM_STEP_ID" in environment:
        return environment.get("SLURM_STEP_NUM_NODES") == "1"
    return promised_size(environment) is None
