"""What a launcher promises, read from the environments that real launchers set."""

import pytest

from hpcddl.cluster.launcher import promised_size


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
        ({"PMI_SIZE": "8"}, 8),
        # srun: one task per rank
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_NTASKS": "16"}, 16),
        # mpirun under Slurm: SLURM_* counts its daemons, one per node
        ({"OMPI_COMM_WORLD_SIZE": "16", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, 16),
        # a plain process in a batch script of a larger job
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "16"}, None),
    ],
)
def test_promised_size(environment: dict[str, str], size: int | None) -> None:
    assert promised_size(environment) == size
