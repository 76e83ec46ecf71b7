"""Sweeps: every combination once, each a run that its recipe accepts."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcddl.common.errors import UserError
from hpcddl.sweeps.definition import Sweep, expand, names, read_sweep
from tests.conftest import ROOT, Launch, environment
from tests.synthetic import write_recipe, write_shards
from tests.test_train import wait_for

AXES = """description: d
recipe: {recipe}
learners: 2
axes:
  - SSGD: {{strategy: ssgd}}
    pairs, late: {{strategy: {{name: dpsgd, delayed: true}}, log_every: 2}}
  - seed: [0, 1]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "ssgd")
    path = tmp_path / "mine.yaml"
    path.write_text(AXES.format(recipe=recipe))
    return path


def test_every_combination_is_a_run(sweep: Path) -> None:
    """The last axis varies fastest; values travel as JSON, which YAML reads back."""
    runs = expand(read_sweep(str(sweep)), ("epochs=1",))
    assert [run.name for run in runs] == [
        "SSGD_seed=0",
        "SSGD_seed=1",
        "pairs, late_seed=0",
        "pairs, late_seed=1",
    ]
    late = 'strategy={"name": "dpsgd", "delayed": true}'
    assert runs[3].overrides == ("epochs=1", late, "log_every=2", "seed=1")


@pytest.mark.parametrize("name", names())
def test_packaged_sweeps_expand(name: str) -> None:
    """Every run of every packaged sweep is one that its recipe accepts."""
    sweep = read_sweep(name)
    assert sweep.description
    assert len(expand(sweep)) > 1


LEARNERS = {"K=1": {"learners": 1, "global_batch": 64}, "K=2": {"learners": 2, "global_batch": 128}}


def test_an_axis_may_vary_the_learners() -> None:
    """`learners` is the run's, not an override; points without it leave the number open."""
    axes = [{**LEARNERS, "any": {"seed": 1}}, {"epochs": [1]}]
    runs = expand(Sweep(description="", recipe="mini.ssgd", learners=4, axes=axes))
    assert [(run.name, run.learners) for run in runs] == [
        ("K=1_epochs=1", 1),
        ("K=2_epochs=1", 2),
        ("any_epochs=1", None),
    ]
    assert runs[1].overrides == ("global_batch=128", "epochs=1")


def test_a_run_is_started_on_its_own_learners(sweep: Path, command: Launch, hpcddl: Launch) -> None:
    """Each is listed with its number, a launcher has to take it, another number is refused."""
    few = {"K=1": {"learners": 1, "global_batch": 8}, "K=2": {"learners": 2, "global_batch": 16}}
    sweep.write_text(sweep.read_text().split("axes:")[0] + f"axes: [{json.dumps(few)}]\n")
    out = ("--out", sweep.parent / "runs")
    listed = command("sweep", sweep, *out, "--launcher", "srun -n {learners}").stdout.splitlines()
    assert "srun -n 1 hpcddl train" in listed[0]
    assert "srun -n 2 hpcddl train" in listed[1]
    fixed = command("sweep", sweep, "--all", "--launcher", "env")
    assert fixed.returncode == 2
    assert "--launcher 'env': must have {learners} in it" in fixed.stderr
    alone = command("sweep", sweep, "--run", 1)
    assert alone.returncode == 2
    assert "K=2 is a run of 2 learners, not of the 1 that were started" in alone.stderr
    done = hpcddl("sweep", sweep, "epochs=1", "--run", 1, *out, ranks=2)
    assert done.returncode == 0, done.stderr
    summary = json.loads((sweep.parent / "runs" / "K=2" / "summary.json").read_text())
    assert summary["learners"] == 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ([{"learners": [0]}], "learners=0: must be a whole number that divides global_batch=512"),
        ([{"learners": [3]}], "learners=3: must be"),
        ([{"learners": ["two"]}], "learners=two: must be"),
        ([{"learners": [[2]]}], "must be a whole number that divides"),
        ([{}], "axes: {}: must be"),
        ([{"seed": [0]}, {"nosuch": [1]}], "unknown key 'nosuch'"),
        ([{"seed": 3}], "axes: seed: must be"),
        ([{"a": {"seed": 1}, "b": {}}], "axes: b: must be"),
        ([{"data.path": ["a/b"]}], "'path=a/b' is to be a folder's name"),
        ([{"seed": [1, 1]}], "two runs are called seed=1"),
    ],
)
def test_bad_axes_are_one_line(axes: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand(Sweep(description="", recipe="mini.ssgd", learners=1, axes=axes))


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for text, message in (
        ("a: [", "not YAML"),
        ("description: d\nrecipes: x\n", "unknown key 'recipes'"),
        ("description: d\nrecipe: mini.ssgd\nlearners: 0\naxes: [{seed: [1]}]\n", "learners=0: "),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_sweep(str(path))
    with pytest.raises(UserError, match="must be a YAML file or one of"):
        read_sweep("nosuch")


@pytest.mark.thorough
def test_one_run_and_then_all(sweep: Path, tmp_path: Path, command: Launch, hpcddl: Launch) -> None:
    """An array task trains one; --all leaves it alone and trains the others; the list says so.

    A run that cannot start is named at the end, with status 1.
    """
    out = tmp_path / "runs"
    (out / "SSGD_seed=1").mkdir(parents=True)
    (out / "SSGD_seed=1" / "in the way").touch()
    one = hpcddl("sweep", sweep, "epochs=1", "--run", 3, "--out", out, ranks=2)
    assert one.returncode == 0, one.stderr
    listed = command("sweep", sweep, "epochs=1", "--out", out).stdout.splitlines()
    assert [line.split()[1] for line in listed] == ["-", "-", "-", "done"]
    assert "mpirun -np 2 hpcddl train" in listed[3]
    assert "'pairs, late_seed=1'" not in listed[0]
    before = (out / "pairs, late_seed=1" / "summary.json").read_bytes()
    # As single learners: the launcher is the user's.
    others = hpcddl("sweep", sweep, "epochs=1", "--all", "--launcher", "env", "--out", out)
    assert others.returncode == 1
    assert "failed: SSGD_seed=1" in others.stderr
    assert (out / "pairs, late_seed=1" / "summary.json").read_bytes() == before
    learners = [json.loads(p.read_text())["learners"] for p in sorted(out.glob("*/summary.json"))]
    assert sorted(learners) == [1, 1, 2]
    assert command("sweep", sweep, "--count").stdout == "4\n"


def test_all_stops_with_the_run_that_is_told_to(sweep: Path, tmp_path: Path) -> None:
    """SIGUSR2 is passed on to the launcher; a run that then ends with 75 ends the sweep so."""
    launcher, began = tmp_path / "launcher.sh", tmp_path / "began"
    launcher.write_text(f"trap 'exit 75' USR2; echo >> {began}; while :; do sleep 0.1; done")
    words = ["sweep", sweep, "--all", "--launcher", f"bash {launcher}", "--out", tmp_path / "runs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hpcddl.cli", *map(str, words)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    wait_for(began.exists)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=60) == 75
    assert began.read_text() == "\n"


def test_a_launcher_that_ends_well_without_its_run(
    sweep: Path, tmp_path: Path, command: Launch
) -> None:
    """As mpirun may after a lost node: the runs have failed, and are listed as not begun."""
    words = ("sweep", sweep, "--out", tmp_path / "runs")
    done = command(*words, "--all", "--launcher", "true")
    assert done.returncode == 1
    assert done.stderr.count("the launcher reports success, but the run has not ended") == 4
    assert [line.split()[1] for line in command(*words).stdout.splitlines()] == 4 * ["-"]


def test_an_index_beyond_the_runs_is_refused(sweep: Path, command: Launch) -> None:
    done = command("sweep", sweep, "--run", 4)
    assert done.returncode == 2
    assert "--run 4: must be 0 to 3" in done.stderr
