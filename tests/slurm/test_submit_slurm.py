"""`hpcddl submit` and the batch scripts under a real Slurm of two nodes."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from hpcddl.run import checkpoint
from hpcddl.submit.written import read_down
from tests.conftest import Launch
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.submitting import (
    Submit,
    held,
    on_path,
    output,
    processes,
    stand_in,
    state,
    until_held,
    wait_until_idle,
)
from tests.synthetic import write_recipe, write_shards


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd")


def shown(cluster: Cluster, folder: Path) -> list[list[str]]:
    """The rows of `hpcddl jobs`."""
    done = cluster.run(sys.executable, "-m", "hpcddl.cli", "jobs", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [re.split(r"  +", line) for line in done.stdout.splitlines()[1:]]


def skip_without_pmix(cluster: Cluster, launcher: str) -> None:
    if launcher == "srun":
        tried = cluster.run("srun", "--mpi=pmix", "true")
        if "can not load PMIx library" in tried.stderr:
            pytest.skip("no libpmix.so for Slurm: apt-get install libpmix-dev")


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_recipe_trains_on_two_nodes(
    launcher: str,
    cluster: Cluster,
    submit: Submit,
    recipe: Path,
    tmp_path: Path,
    hpcddl: Launch,
) -> None:
    """Two ranks on each node, data from the node's disk; the end is shown after the job is gone.

    DPSGD's weights are those of four ranks on one node.
    """
    skip_without_pmix(cluster, launcher)
    (tmp_path / "disk").mkdir()
    job = submit("--stage", "site", recipe, launcher=launcher)
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert "4 learners, 2 of them on this node" in printed, printed
    assert f"{tmp_path}/disk" in printed
    assert state(cluster, job) == "COMPLETED"
    assert (tmp_path / "runs/r/summary.json").exists()
    [row] = shown(cluster, tmp_path)
    assert row[:5] == [job, "r", "ended", "runs/r", "3.00/3"]
    assert row[6:] == ["done", f"slurm/r-{job}.out"]
    if launcher == "mpirun":
        assert hpcddl("train", recipe, "--out", tmp_path / "one", ranks=4).returncode == 0
        runs = (tmp_path / "runs/r", tmp_path / "one")
        two, one = (json.loads((run / "summary.json").read_text()) for run in runs)
        assert two["weights_sha256"] == one["weights_sha256"]


def test_a_sweep_is_an_array(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """Each task trains its run; one that fails takes no other with it, and their states are shown.

    One that is warned comes back under its number, and alone.
    """
    sweep = {
        "description": "d",
        "recipe": str(recipe),
        "learners": 2,
        "axes": [{"SSGD": {"strategy": "ssgd"}, "bad": {"data.path": "nowhere"}}, {"seed": [1]}],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep))
    job = submit("s.yaml", path=held(tmp_path))
    wait_until((tmp_path / "held-1").exists)
    wait_until(lambda: state(cluster, f"{job}_1") == "FAILED")
    running, failed = shown(cluster, tmp_path)
    assert running[:5] == [f"{job}_0", "s", "RUNNING", "runs/s/SSGD_seed=1", "1.00/3"]
    assert re.fullmatch(r"\d+m\d\ds", running[6])
    assert failed[:4] == [f"{job}_1", "s", "ended", "runs/s/bad_seed=1"]
    assert cluster.run("scancel", "--batch", "--signal=USR2", f"{job}_0").returncode == 0
    wait_until(lambda: "requeued, restart 1" in output(tmp_path))
    (tmp_path / "hold").unlink()
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert re.search(r"resumed after \d+ updates", printed), printed
    assert "nowhere" in printed
    assert (state(cluster, f"{job}_0"), state(cluster, f"{job}_0", "Restarts")) == (
        "COMPLETED",
        "1",
    )
    assert (state(cluster, f"{job}_1"), state(cluster, f"{job}_1", "Restarts")) == ("FAILED", "0")
    rows = shown(cluster, tmp_path)
    assert [row[:4] + row[6:7] for row in rows] == [
        [f"{job}_0", "s", "ended", "runs/s/SSGD_seed=1", "done"],
        [f"{job}_1", "s", "ended", "runs/s/bad_seed=1", "-"],
    ]


def test_what_waits_for_a_failed_packing_is_taken_away(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """One task of the array fails: neither the merge nor the training after it starts or stays."""
    path = on_path(tmp_path, '#!/bin/bash\necho "$@"; [[ $* != *"--job 2/2"* ]]\n')
    words = ("prep", "--", "--data", "x", "--ali", "x", "--out", "set")
    merge = submit("--array", 2, *words, path=path)
    submit("--after", merge, "--report", recipe, path=path)  # of the same site
    wait_until_idle(cluster)
    pack, *waiting = (line.job for line in read_down(tmp_path))
    assert [state(cluster, f"{pack}_{task}") for task in (1, 2)] == [
        "COMPLETED",
        "FAILED",
    ], output(tmp_path)
    assert [state(cluster, job) for job in waiting] == 3 * ["CANCELLED"]
    assert not (tmp_path / "runs").exists()
    assert [path.name.partition("-")[0] for path in (tmp_path / "slurm").glob("*.out")] == [
        "prep",
        "prep",
    ]


def warn(cluster: Cluster, job: str, folder: Path) -> None:
    """As Slurm does before the time is up, to the batch script alone, when all ranks are up."""
    wait_until(lambda: len(list(folder.glob("runs/r/up-*"))) == 4)
    assert cluster.run("scancel", "--batch", "--signal=USR2", job).returncode == 0


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_warned_job_stops_and_goes_on(
    launcher: str, cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """The warning reaches every rank on both nodes; status 75 starts the job again."""
    skip_without_pmix(cluster, launcher)
    # As real ranks, which agree on when to stop: all wait for the end of one pipe, as the launcher
    # ends the others as soon as the first has exited.
    os.mkfifo(tmp_path / "pipe")
    together = f'exec 3<{tmp_path}/pipe; touch "$out/stops-$rank"; read -ru 3; exit 75'
    with (tmp_path / "pipe").open("r+b", buffering=0):
        job = submit(recipe, launcher=launcher, path=stand_in(tmp_path, together))
        warn(cluster, job, tmp_path)
        wait_until(lambda: len(list(tmp_path.glob("runs/r/stops-*"))) == 4)
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert {file.name for file in tmp_path.glob("runs/r/warned-*")} == {
        f"warned-{rank}" for rank in range(4)
    }, printed
    assert "stopped with a checkpoint; requeued, restart 1 of at most 3" in printed
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1")
    assert (tmp_path / "runs/r/summary.json").exists()


def test_ranks_that_do_not_listen_yet_die_of_the_warning(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """While they are imported: Slurm may warn a minute early. The job starts again."""
    job = submit(recipe, path=stand_in(tmp_path, at_first="trap - USR2"))
    warn(cluster, job, tmp_path)
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert re.search(r"ended with status \d+ when it was warned; requeued", printed), printed
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1"), printed


def test_ranks_that_do_not_stop_in_time_are_left_behind(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """The job is requeued before Slurm would end it for good."""
    job = submit(recipe, grace=1, path=stand_in(tmp_path))
    warn(cluster, job, tmp_path)
    wait_until_idle(cluster)
    assert "no checkpoint within 1 s of the warning; requeued" in output(tmp_path)
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1")


def test_a_job_does_not_come_back_for_ever(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    job = submit(recipe, requeues=0, path=stand_in(tmp_path, "exit 75"))
    warn(cluster, job, tmp_path)
    wait_until_idle(cluster)
    assert "restarted 0 times already, so not again" in output(tmp_path)
    assert (state(cluster, job), state(cluster, job, "ExitCode")) == ("FAILED", "75:0")


def test_the_launchers_word_alone_is_no_success(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """As after a lost node: mpirun ends with 0, and there is no summary."""
    job = submit(recipe, path=stand_in(tmp_path, at_first="exit 0"))
    wait_until_idle(cluster)
    assert "there is no runs/r/summary.json: the run has not ended" in output(tmp_path)
    assert state(cluster, job) == "FAILED"


def test_a_cancelled_run_goes_on_when_submitted_again(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """scancel is final for the job, and leaves the newest whole checkpoint to the next.

    That is one of the update at hand where the ranks had the time after SIGTERM.
    """
    run = tmp_path / "runs" / "r"
    job = submit(recipe, path=held(tmp_path))
    until_held(tmp_path)
    assert cluster.run("scancel", job).returncode == 0
    wait_until_idle(cluster)
    assert state(cluster, job) == "CANCELLED"
    wait_until(lambda: not list(processes(job)))
    left = checkpoint.newest(run)
    assert left is not None
    (tmp_path / "hold").unlink()
    submit(recipe)
    wait_until_idle(cluster)
    assert f"resumed after {left.position.steps} updates" in output(tmp_path)
    assert json.loads((run / "summary.json").read_text())["epoch"] == 3
