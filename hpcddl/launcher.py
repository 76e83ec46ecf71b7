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
