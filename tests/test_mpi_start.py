"""What Open MPI is told before it starts: on one node, on a cluster, where the user has chosen."""

from pathlib import Path

import pytest

from hpcddl.cluster import mpi_start
from hpcddl.cluster.launcher import one_node
from hpcddl.doctor.doctor import gather

BTL = "OMPI_MCA_btl"
ONE = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
TWO = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with an InfiniBand card and an Open MPI without parameters of its own."""
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "one"),
    [
        ({}, True),
        (ONE, True),
        (TWO, False),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "1"}, True),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, False),
        # Of mpirun inside a Slurm job, its own word counts: Slurm's is of its daemons.
        ({**TWO, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1"}, False),
        ({"PMI_SIZE": "4"}, False),  # which does not say where they are
    ],
)
def test_one_node(environment: dict[str, str], one: bool) -> None:
    assert one_node(environment) == one


@pytest.mark.parametrize("environment", [{}, ONE], ids=["alone", "one node"])
def test_left_out_on_one_node(environment: dict[str, str], root: Path) -> None:
    """Whatever network the node has."""
    environment = dict(environment)
    mpi_start.prepare(environment, root)
    assert environment[BTL] == "^ofi"
    assert "left out (one node)" in mpi_start.describe(environment, root)


def test_kept_on_a_cluster(root: Path) -> None:
    """Several nodes and a fabric: nothing is set."""
    environment = dict(TWO)
    mpi_start.prepare(environment, root)
    assert BTL not in environment
    said = mpi_start.describe(environment, root)
    assert said == "ofi as it comes (several nodes, with /sys/class/infiniband)"


def test_left_out_where_no_node_has_a_fabric(tmp_path: Path) -> None:
    environment = dict(TWO)
    mpi_start.prepare(environment, tmp_path)
    assert environment[BTL] == "^ofi"
    assert "no fabric here" in mpi_start.describe(environment, tmp_path)


@pytest.mark.parametrize("chosen", ["tcp,self", "^ofi", ""])
def test_the_user_s_variable_stands(chosen: str, root: Path) -> None:
    environment = {**ONE, BTL: chosen}
    mpi_start.prepare(environment, root)
    assert environment == {**ONE, BTL: chosen} | {
        key: value for key, value in environment.items() if "yield" in key
    }
    assert f"{BTL}={chosen}" in mpi_start.describe(environment, root)


@pytest.mark.parametrize("place", ["system", "home", "prefix", "named"])
def test_the_user_s_file_stands(place: str, root: Path) -> None:
    """A variable would overrule it. Debian's own file, for one, has such a line."""
    (root / "opt/bin").mkdir(parents=True)
    mpirun = root / "opt/bin/mpirun"
    mpirun.touch(0o755)
    path = {
        "system": root / "etc/openmpi/openmpi-mca-params.conf",
        "home": root / "home/.openmpi/mca-params.conf",
        "prefix": root / "opt/etc/openmpi-mca-params.conf",
        "named": root / "named.conf",
    }[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {
        "HOME": str(root / "home"),
        "PATH": str(mpirun.parent),
        "OMPI_MCA_mca_base_param_files": str(root / "named.conf"),
    }
    for text, left in (("# btl = tcp\nbtl_base_verbose = 1\n", True), ("btl = ^uct\n", False)):
        path.write_text(text)
        environment = {**ONE, **own}
        mpi_start.prepare(environment, root)
        assert (environment.get(BTL) == "^ofi") == left
    assert f"btl is set in {path}" in mpi_start.describe(environment, root)


def test_what_hpcddl_set_is_decided_anew_by_what_it_starts(root: Path) -> None:
    """`hpcddl tune` on a login node starts ranks on many: its own setting is not the user's."""
    environment: dict[str, str] = {}
    mpi_start.prepare(environment, root)
    environment.update(TWO)
    mpi_start.prepare(environment, root)
    assert BTL not in environment
    assert "several nodes" in mpi_start.describe(environment, root)
    mpi_start.prepare(environment := {}, root)
    environment[BTL] = "tcp,self"  # set by a script in between
    mpi_start.prepare(environment, root)
    assert environment[BTL] == "tcp,self"
    assert f"{BTL}=tcp,self" in mpi_start.describe(environment, root)


def test_the_doctor_shows_it(tmp_path: Path) -> None:
    """In its line on MPI, of this very process."""
    assert "ofi " in gather(tmp_path, 60).first.software.mpi_start
