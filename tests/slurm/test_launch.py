"""Launching under a real Slurm: the right way trains on two nodes, a wrong one is refused."""

import json
import sys
from pathlib import Path

from tests.conftest import Launch
from tests.slurm.conftest import Cluster, wait_until
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


def test_mpirun_in_a_batch_job_spans_the_nodes(
    cluster: Cluster, tmp_path: Path, hpcddl: Launch
) -> None:
    """Two nodes of two ranks train, and DPSGD's weights are those of four ranks on one node."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd")
    program = f"{sys.executable} -m hpcddl.cli train {recipe} --out {tmp_path}/two"
    launcher = f"{Path(sys.executable).parent}/mpirun -np 4 --map-by ppr:2:node --bind-to none"
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n{launcher} {program}\n")
    output = tmp_path / "job.out"
    size = ("--nodes=2", "--ntasks-per-node=2")
    submitted = cluster.run("sbatch", "--parsable", *size, f"--output={output}", script)
    assert submitted.returncode == 0, submitted.stderr
    # sbatch --wait would look only every half minute.
    wait_until(lambda: cluster.run("squeue", "-h", "-j", submitted.stdout.strip()).stdout == "")
    printed = output.read_text()
    assert "4 learners, 2 of them on this node" in printed
    assert hpcddl("train", recipe, "--out", tmp_path / "one", ranks=4).returncode == 0
    two, one = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("two", "one"))
    assert two["weights_sha256"] == one["weights_sha256"]
