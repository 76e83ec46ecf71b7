"""Time limits and kills of jobs on two nodes: they go on to the bits of one left alone."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.submitting import (
    Submit,
    held,
    output,
    processes,
    state,
    submit,
    until_held,
    wait_until_idle,
)
from tests.synthetic import write_recipe, write_shards

# Averages over all learners, whose last bits depend on the layout; 30 updates.
MORE = "checkpoint: {every_steps: 5}\nlog_every: 1"


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A recipe, and the checksums of each learner's weights after a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder / "r.yaml", write_shards(folder / "shards"), "ssgd", MORE)
    submit(cluster, folder, recipe)
    wait_until_idle(cluster)
    assert (folder / "runs/r/summary.json").exists(), output(folder)
    return recipe, checksums(folder)


def checksums(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "runs/r/summary.json").read_text())["weights_sha256"]
    assert len(found) == 4
    return found


def rank(job: str, number: int) -> int:
    """The process of one rank."""
    (found,) = (
        process
        for process, variables, name in processes(job)
        if variables.get("OMPI_COMM_WORLD_RANK") == str(number) and name == "hpcddl"
    )
    return found


def resumed_after(folder: Path) -> int:
    """How many updates the restart took over."""
    found = re.search(r"resumed after (\d+) updates", output(folder))
    assert found, output(folder)
    return int(found[1])


def test_the_time_limit_costs_nothing(
    cluster: Cluster, submit: Submit, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Slurm's own warning: a checkpoint of the update at hand, status 75, the queue again."""
    recipe, expected = whole
    # A minute is the least limit that Slurm takes, which it looks at every half minute.
    options = ("--sbatch=--time=1", "--sbatch=--signal=B:USR2@10")
    job = submit(*options, recipe, path=held(tmp_path))
    wait_until(lambda: "requeued, restart 1" in output(tmp_path))
    # On a busy machine the ranks may take a minute to start: once is enough.
    assert cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10").returncode == 0
    (tmp_path / "hold").unlink()
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert "warned by Slurm: the ranks are told to stop with a checkpoint" in printed
    stopped = re.search(r"stopped by SIGUSR2 after (\d+) updates; --resume goes on", printed)
    assert stopped, printed
    assert f"resumed after {stopped[1]} updates" in printed
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1")
    assert checksums(tmp_path) == expected


@pytest.mark.parametrize("victim", ["rank", "mpirun"])
def test_a_kill_costs_what_came_after_the_last_checkpoint(
    victim: str, cluster: Cluster, submit: Submit, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """SIGKILL, as of the kernel where memory is short: no process is left, the job has failed.

    Submitted again it goes on; after the rank's kill from the checkpoint before a damaged one.
    """
    recipe, expected = whole
    job = submit(recipe, path=held(tmp_path))
    until_held(tmp_path)
    if victim == "rank":
        os.kill(rank(job, 3), signal.SIGKILL)
    else:
        (launcher,) = (process for process, _, name in processes(job) if name == "prterun")
        os.kill(launcher, signal.SIGKILL)
    wait_until_idle(cluster)
    assert state(cluster, job) == "FAILED", output(tmp_path)
    wait_until(lambda: not list(processes(job)))
    assert not (tmp_path / "runs/r/summary.json").exists()
    (tmp_path / "hold").unlink()
    if victim == "rank":
        damaged = tmp_path / "runs/r/checkpoints/epoch-0001/learner-00002.pt"
        damaged.write_bytes(damaged.read_bytes()[:-1])
    submit(recipe)
    wait_until_idle(cluster)
    if victim == "rank":
        assert f"warning: {damaged.relative_to(tmp_path)}: altered" in output(tmp_path)
        assert resumed_after(tmp_path) == 5
    else:
        assert resumed_after(tmp_path) >= 10  # as after a lost node
    assert checksums(tmp_path) == expected


def test_a_lost_node_costs_what_came_after_the_last_checkpoint(
    cluster: Cluster, submit: Submit, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """SIGKILL of a slurmd; Slurm counts the node as down and requeues the job by itself.

    Sometimes nothing: where SIGTERM still finds all ranks alive, they write a last checkpoint.
    """
    recipe, expected = whole
    job = submit(recipe, path=held(tmp_path))
    until_held(tmp_path)
    cluster.daemons["n2"].kill()
    cluster.daemons["n2"].wait()
    # Which it finds out by itself after SlurmdTimeout, five minutes.
    down = ("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=lost")
    assert cluster.run(*down).returncode == 0
    wait_until(lambda: state(cluster, job, "Restarts") == "1")
    (tmp_path / "hold").unlink()
    cluster.start_node("n2")
    assert cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME").returncode == 0
    wait_until_idle(cluster)
    assert resumed_after(tmp_path) >= 10
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1")
    assert checksums(tmp_path) == expected


def test_a_second_job_in_a_run_directory_is_refused(
    cluster: Cluster, submit: Submit, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """While the first trains, on another node; that one ends as if nothing had been."""
    recipe, _ = whole
    path = held(tmp_path)
    first = submit("--nodes", 1, recipe, path=path)
    wait_until((tmp_path / "held-1").exists)
    second = submit("--nodes", 1, recipe, path=path)
    wait_until(lambda: state(cluster, second) == "FAILED")
    assert state(cluster, second, "ExitCode") == "2:0"
    printed = output(tmp_path)
    held_by = rf"another job trains there: process \d+ on n1, Slurm job {first}\n"
    assert re.search(held_by, printed), printed
    (tmp_path / "hold").unlink()
    wait_until_idle(cluster)
    assert state(cluster, first) == "COMPLETED"
    assert (tmp_path / "runs/r/summary.json").exists()
