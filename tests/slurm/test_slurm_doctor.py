"""The doctor under a real Slurm: launchers that fit MPI, one that does not, and its own facts."""

import json
import os
import sys
from pathlib import Path

from tests.conftest import mpirun_command
from tests.slurm.cluster import Cluster

PROGRAM = (sys.executable, "-m", "hpcddl.cli", "doctor", "--json")


def test_a_launcher_without_pmix(cluster: Cluster, tmp_path: Path) -> None:
    """Two worlds of one: one report, by the first of them; both exit with 1."""
    words = ("--mpi=none", *PROGRAM, "--out", tmp_path)
    done = cluster.run("srun", "-N2", "-n2", "--kill-on-bad-exit=0", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["findings"]["ranks"]["verdict"] == "fault"
    assert report["findings"]["ranks"]["found"] == "2 ranks were started, but MPI joined 1"
    slurm = report["ranks"][0]["slurm"]
    assert slurm["version"]
    assert slurm["job"]
    assert slurm["nodes"] == 2
    assert "none" in slurm["mpi_types"]


def test_mpirun_over_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Each node's rank sees the folder; without the mapping all ranks are on the first node."""
    mpirun = [*mpirun_command(2)[:3], "--bind-to", "none"]
    size = ("-N2", "--ntasks-per-node=1")
    words = (*PROGRAM, "--out", tmp_path)
    good = cluster.run("salloc", *size, *mpirun, "--map-by", "ppr:1:node", *words)
    assert good.returncode == 0, good.stdout + good.stderr
    report = json.loads(good.stdout[good.stdout.index("{") :])
    assert report["findings"]["nodes"]["found"] == "2 nodes x 1 rank"
    assert report["findings"]["run folder"]["found"].endswith("is the same on all ranks")
    assert "apart at most" in report["findings"]["clocks"]["found"]
    bad = cluster.run("salloc", "-N2", "--ntasks-per-node=2", *mpirun, "--map-by", "slot", *words)
    assert bad.returncode == 1, bad.stdout + bad.stderr
    findings = json.loads(bad.stdout[bad.stdout.index("{") :])["findings"]
    assert findings["nodes"]["found"] == "all 2 ranks are on 1 of the job's 2 nodes"
    assert "ppr:" in findings["nodes"]["mend"]
    assert os.listdir(tmp_path) == []
