"""`hpcddl tune` on real runs: kept, gone on with, never repeated; what is refused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcddl.run.config  # noqa: F401  MPI starts here, as for all tests of this process, not as in tune
from tests.conftest import ROOT, Launch, environment, mpirun_command, run_python
from tests.synthetic import write_recipe, write_shards


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shards = write_shards(tmp_path / "shards")
    return write_recipe(tmp_path / "tiny.yaml", shards, "ssgd", "prefetch: 0")


@pytest.fixture
def interruptible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of the runs, and Ctrl-C and SIGTERM as at a terminal; afterwards as before.

    A suite that a script starts in the background ignores Ctrl-C, and so do all that it starts.
    """
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


HANGS_ONCE = """
if [[ $* == *rate=0.125* && ! -e {folder}/pid ]]; then
  echo $$ > {folder}/new && mv {folder}/new {folder}/pid
  exec sleep 600
fi
exec "$@"
"""


@pytest.mark.thorough
def test_a_search_that_was_stopped_goes_on(
    recipe: Path, tmp_path: Path, hpcddl: Launch, command: Launch, interruptible: None
) -> None:
    """On Ctrl-C its run ends too; the same command reads what has ended and trains the rest."""
    out, launcher, pid = tmp_path / "out", tmp_path / "launcher.sh", tmp_path / "pid"
    launcher.write_text(HANGS_ONCE.format(folder=tmp_path))
    words = ["-m", "hpcddl.cli", "tune", recipe, "epochs=2", "--factor", "4", "--trials", "3"]
    words += ["--launcher", f"bash {launcher}", "--out", out]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(pid, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the same command goes on" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    before = (out / "rate=0.5_seed=5" / "summary.json").read_bytes()

    done = hpcddl(*words[2:])
    assert done.returncode == 0, done.stderr
    assert "rate=0.5_seed=5: begins" not in done.stdout
    assert done.stdout.count(": begins") == 2
    assert (out / "rate=0.5_seed=5" / "summary.json").read_bytes() == before
    found = json.loads((out / "tune.json").read_text())
    losses = [trial["heldout_loss"] or math.inf for trial in found["trials"]]  # null: lost
    assert losses == sorted(losses)
    assert {trial["point"]["schedule.rate"] for trial in found["trials"]} == {0.125, 0.5, 2.0}
    assert (out / "tune.png").exists()
    for trial in found["trials"]:  # each number is its run directory's
        (run,) = trial["runs"]
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        assert run["heldout_loss"] == summary["heldout_loss"]
        assert run["diverged"] == summary["diverged"]
        assert run["not_above_chance"] == summary["not_above_chance"]
        lost = run["diverged"] or run["not_above_chance"]
        assert lost == (trial["heldout_loss"] is None)
        assert run["heldout_error"] == 1 - summary["heldout_accuracy"]

    again = command(*words[2:])
    assert again.returncode == 0, again.stderr
    assert ": begins" not in again.stdout
    assert json.loads((out / "tune.json").read_text()) == found
    other = command(*words[2:4], "global_batch=48", *words[4:])
    assert other.returncode == 2
    assert "global_batch was 24" in other.stderr


def test_a_search_stops_with_the_run_that_is_told_to(
    recipe: Path, tmp_path: Path, command: Launch, interruptible: None
) -> None:
    """A run that ends with 75 has a checkpoint: the search ends with 75 too, and may go on."""
    words = ["tune", recipe, "--trials", "1", "--launcher", "bash -c 'exit 75'"]
    done = command(*words, "--out", tmp_path / "out")
    assert done.returncode == 75
    assert "the same command goes on from here" in done.stderr


@pytest.mark.thorough
def test_a_trial_on_two_ranks_that_diverges(
    recipe: Path, tmp_path: Path, command: Launch, interruptible: None
) -> None:
    words = ["tune", recipe, "epochs=1", "schedule.rate=1e9", "--factor", "2", "--trials", "1"]
    words += ["--out", tmp_path / "out", "--launcher", " ".join(mpirun_command(2))]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "rate=1000000000_seed=5: diverged" in done.stdout
    assert "all 1 trials diverged" in done.stdout
    (trial,) = json.loads((tmp_path / "out" / "tune.json").read_text())["trials"]
    assert trial["runs"][0]["learners"] == 2


@pytest.mark.thorough
def test_a_run_that_fails_ends_the_search(recipe: Path, tmp_path: Path) -> None:
    """With status 1 and its error in a line. MPI has not been started beside it."""
    words = ["tune", str(recipe), "data.path=nosuch", "--launcher", "env"]
    words += ["--out", str(tmp_path / "out")]
    code = (
        f"from hpcddl.cli import main; status = main({words!r});"
        "from mpi4py import MPI; assert not MPI.Is_initialized(); raise SystemExit(status)"
    )
    done = run_python("-c", code, cold=True)
    assert done.returncode == 1, done.stderr
    assert "rate=0.5_seed=5: exit status 2: " in done.stderr
    assert "nosuch" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "tune.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "schedule.rat"], "nearest: 'rate'"),
        (["--over", "noise", "--factor", "2"], "--factor: --over noise has the paper's values"),
        (["--over", "gradient-noise", "--trials", "3"], "--trials: --over gradient-noise has"),
        (["--factor", "1"], "--factor: 1: must be at least 1.01"),
        (["--seeds", "0"], "--seeds: 0: must be a whole number, at least 1"),
        (["--by", "loss"], "invalid choice: 'loss'"),
        (["--launcher", "nosuch-launcher"], "--launcher nosuch-launcher: "),
        (["--launcher", ""], "must be a command"),
        (["--launcher", "'"], "--launcher ': No closing quotation"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str], message: str, recipe: Path, tmp_path: Path, command: Launch
) -> None:
    done = command("tune", recipe, "--launcher", "env", "--out", tmp_path / "out", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_recipe_that_is_refused_is_one_line(recipe: Path, command: Launch) -> None:
    done = command("tune", recipe, "epochs=0", "--launcher", "env")
    assert done.returncode == 2
    assert done.stderr.startswith(f"hpcddl: error: {recipe}: epochs=0: ")
    assert done.stderr.count("\n") == 1


def test_it_is_no_job_of_several_ranks(
    recipe: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    done = command("tune", recipe, "--launcher", "env")
    assert done.returncode == 2
    assert "tune: 2 ranks, must be 1, without a launcher" in done.stderr


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} is not there after a minute")
