"""`hpcddl submit` and the batch scripts under a real Slurm of two nodes."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hpcddl import checkpoint
from tests.slurm.conftest import Cluster, wait_until
from tests.synthetic import write_recipe, write_shards

Submit = Callable[..., str]
BIN = Path(sys.executable).parent

SITE = """\
#SBATCH-TRAIN --ntasks-per-node=2 --gres=gpu:v100:2
#SBATCH-REPORT --mem=500M
launcher={launcher}
local_disk={folder}/disk
requeues={requeues}
grace_seconds={grace}
export OMP_NUM_THREADS=1
PATH={path}:$PATH
"""

# In place of the ranks' `hpcddl`, for a long training: each rank shows that it is up, and waits for
# the warning; started again, it ends the run. Launcher, signals and Slurm are the real ones.
STAND_IN = """\
#!/bin/bash
rank=${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}
out=$(sed -E 's/.*--out ([^ ]+).*/\\1/' <<<"$*")
mkdir -p "$out"
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]]; then
    touch "$out/summary.json"
    exit 0
fi
warned() {
    touch "$out/warned-$rank"
    ON_WARNING
}
trap warned USR2
touch "$out/up-$rank"
AT_FIRST
for ((i = 0; i < 1000; i++)); do sleep 0.1; done
"""


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Iterator[Submit]:
    """`hpcddl submit` from a folder of its own, for a site with these settings; the job's id."""

    def call(
        *words: object,
        launcher: str = "mpirun",
        requeues: int = 3,
        grace: int = 60,
        path: object = BIN,
    ) -> str:
        site = SITE.format(
            launcher=launcher, folder=tmp_path, requeues=requeues, grace=grace, path=path
        )
        (tmp_path / "site.sh").write_text(site)
        program = (sys.executable, "-m", "hpcddl.cli", "submit", "--site", tmp_path / "site.sh")
        done = cluster.run(*program, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield call
    cluster.run("scancel", "--user=root")  # what a failed test has left
    wait_until_idle(cluster)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd")


def wait_until_idle(cluster: Cluster) -> None:
    wait_until(lambda: cluster.run("squeue", "-h").stdout == "", seconds=120)


def shown(cluster: Cluster, folder: Path) -> list[list[str]]:
    """The rows of `hpcddl jobs`."""
    done = cluster.run(sys.executable, "-m", "hpcddl.cli", "jobs", cwd=folder)
    assert done.returncode == 0, done.stderr
    return [re.split(r"  +", line) for line in done.stdout.splitlines()[1:]]


def state(cluster: Cluster, job: str, field: str = "JobState") -> str:
    text = cluster.run("scontrol", "show", "job", job).stdout
    return re.search(rf"\b{field}=(\S+)", text)[1]  # type: ignore[index]


def output(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("slurm/*.out")))


def stand_in(folder: Path, on_warning: str = ":", at_first: str = ":") -> str:
    """A PATH with the stand-in for `hpcddl` on it."""
    text = STAND_IN.replace("ON_WARNING", on_warning).replace("AT_FIRST", at_first)
    (folder / "bin").mkdir()
    (folder / "bin" / "hpcddl").write_text(text)
    (folder / "bin" / "hpcddl").chmod(0o755)
    return f"{folder}/bin:{BIN}"


def skip_without_pmix(cluster: Cluster, launcher: str) -> None:
    if launcher == "srun":
        tried = cluster.run("srun", "--mpi=pmix", "true")
        if "can not load PMIx library" in tried.stderr:
            pytest.skip("no libpmix.so for Slurm: apt-get install libpmix-dev")


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_recipe_trains_on_two_nodes(
    launcher: str, cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """Two ranks on each node, data from the node's disk; the end is shown after the job is gone."""
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


def test_a_sweep_is_an_array(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """Each task trains its run; one that fails takes no other with it, and its state is shown."""
    sweep = {
        "description": "d",
        "recipe": str(recipe),
        "learners": 2,
        "axes": [{"SSGD": {"strategy": "ssgd"}, "bad": {"data.path": "nowhere"}}, {"seed": [1]}],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep))
    job = submit("s.yaml", "epochs=2")
    wait_until(lambda: [row[2] for row in shown(cluster, tmp_path)][:1] == ["RUNNING"])
    wait_until_idle(cluster)
    assert (tmp_path / "runs/s/SSGD_seed=1/summary.json").exists()
    assert state(cluster, f"{job}_1") == "FAILED"
    assert "nowhere" in output(tmp_path)
    rows = shown(cluster, tmp_path)
    assert [row[:4] + row[6:7] for row in rows] == [
        [f"{job}_0", "s", "ended", "runs/s/SSGD_seed=1", "done"],
        [f"{job}_1", "s", "ended", "runs/s/bad_seed=1", "-"],
    ]


def test_what_waits_for_a_failed_packing_is_taken_away(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """One task of the array fails: neither the merge nor the training after it starts or stays."""
    merge = submit("--array", 2, "prep", "--", "--data", "x", "--ali", "x", "--out", "set")
    train = submit("--after", merge, "--report", recipe)
    wait_until_idle(cluster)
    assert {state(cluster, job) for job in (merge, train)} == {"CANCELLED"}
    assert not (tmp_path / "set").exists()
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
    job = submit(recipe, launcher=launcher, path=stand_in(tmp_path, "exit 75"))
    warn(cluster, job, tmp_path)
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert {file.name for file in tmp_path.glob("runs/r/warned-*")} == {
        f"warned-{rank}" for rank in range(4)
    }, printed
    assert "stopped with a checkpoint; requeued, restart 1 of at most 3" in printed
    assert (state(cluster, job), state(cluster, job, "Restarts")) == ("COMPLETED", "1")
    assert (tmp_path / "runs/r/summary.json").exists()


def test_the_time_limit_warns(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    """Even before the ranks listen, which then die of it: Slurm may warn a minute early."""
    # A minute is the least limit that Slurm takes.
    options = ("--sbatch=--time=1", "--sbatch=--signal=B:USR2@30")
    job = submit(*options, recipe, path=stand_in(tmp_path, "exit 75"))
    wait_until_idle(cluster)
    printed = output(tmp_path)
    assert "warned by Slurm: the ranks are told to stop with a checkpoint" in printed
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
    """scancel is final for the job, and leaves the newest whole checkpoint to the next."""
    run = tmp_path / "runs" / "r"
    job = submit(recipe, "epochs=5000")
    wait_until(lambda: len(list(run.glob("checkpoints/epoch-*"))) >= 2)
    assert cluster.run("scancel", job).returncode == 0
    wait_until_idle(cluster)
    assert state(cluster, job) == "CANCELLED"
    left = checkpoint.newest(run)
    assert left is not None
    submit(recipe, f"epochs={left.position.epoch + 1}")
    wait_until_idle(cluster)
    assert f"resumed after {left.position.steps} updates" in output(tmp_path)
    assert json.loads((run / "summary.json").read_text())["epoch"] == left.position.epoch + 1
