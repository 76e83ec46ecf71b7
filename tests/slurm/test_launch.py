"""Launching under a real Slurm: a way that does not fit MPI is refused."""

import sys
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.synthetic import write_recipe, write_shards


def test_a_launcher_without_pmix_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """srun --mpi=none starts two worlds of one: each says so, in one line, and exits 2."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "ssgd")
    program = (sys.executable, "-m", "hpcddl.cli")
    words = ("train", recipe, "--out", tmp_path / "run")
    done = cluster.run("srun", "-N2", "-n2", "--mpi=none", *program, *words)
    assert done.returncode == 2
    ours = [line for line in done.stderr.splitlines() if line.startswith("hpcddl: error:")]
    assert len(ours) == 2
    assert all("2 ranks were started but MPI joined 1" in line for line in ours)
    assert not (tmp_path / "run").exists()
