"""`hpcddl analyze landscape|interpolate` on real runs: restart, ends, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Launch, environment, mpirun_command
from tests.synthetic import write_recipe, write_shards


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> list[Path]:
    """SSGD and DPSGD of two learners for an epoch."""
    folder = tmp_path_factory.mktemp("runs")
    shards = write_shards(folder / "shards")
    for strategy in ("ssgd", "dpsgd"):
        recipe = write_recipe(folder / "r.yaml", shards, strategy)
        done = hpcddl("train", recipe, "epochs=1", "--out", folder / strategy, ranks=2)
        assert done.returncode == 0, done.stderr
    return [folder / "ssgd", folder / "dpsgd"]


def kill_in_the_middle(words: list[str], kept: Path) -> None:
    """Starts the command on two ranks and kills them once some points are kept, but not all."""
    process = subprocess.Popen(
        [*mpirun_command(2), sys.executable, "-m", "hpcddl.cli", *words],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 100
    while not (kept.exists() and kept.read_bytes().count(b"\n") > 20):
        assert process.poll() is None, "ended by itself"
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.thorough
def test_a_killed_landscape_goes_on_to_the_same_bytes(
    runs: list[Path], tmp_path: Path, command: Launch
) -> None:
    """Killed on two ranks, ended on one: as if it had never stopped."""
    words = ["analyze", "landscape", *map(str, runs), "--points", "40", "--scale", "0.5"]
    kill_in_the_middle([*words, "--out", str(tmp_path / "a")], tmp_path / "a" / "ssgd.points")
    assert not (tmp_path / "a" / "dpsgd.points").exists()
    for name in ("a", "b"):
        done = command(*words, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for name in ("ssgd.csv", "dpsgd.csv", "landscape.json"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        assert one == other, name
    assert "batch norm: the network has none" in done.stdout


def test_the_centre_is_the_run_s_own_evaluation(runs: list[Path], command: Launch) -> None:
    """On all held-out samples; beside the first run where --out is not given."""
    done = command("analyze", "landscape", *runs, "--points", 2, "--directions", 1)
    assert done.returncode == 0, done.stderr
    said = json.loads((runs[0].parent / "landscape" / "landscape.json").read_text())["runs"]
    for run, facts in zip(runs, said, strict=True):
        own = json.loads(command("evaluate", run, "--json").stdout)
        assert facts["loss"] == pytest.approx(own["heldout_loss"], rel=1e-6)
        assert 1 - facts["error"] == pytest.approx(own["heldout_accuracy"], rel=1e-9)
        assert facts["samples"] == 45


def test_the_line_s_ends_are_the_runs_own_evaluations(runs: list[Path], command: Launch) -> None:
    done = command("analyze", "interpolate", *runs, "--points", 7)
    assert done.returncode == 0, done.stderr
    folder = runs[0] / "analysis" / "interpolate"
    with open(folder / "interpolate.csv") as file:
        rows = {float(row["t"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [-1, -0.5, 0, 0.5, 1, 1.5, 2]
    for t, run in enumerate(runs):
        own = json.loads(command("evaluate", run, "--json").stdout)
        assert float(rows[t]["heldout_loss"]) == pytest.approx(own["heldout_loss"], rel=1e-6)
        accuracy = 1 - float(rows[t]["heldout_error"])
        assert accuracy == pytest.approx(own["heldout_accuracy"], rel=1e-9)
    assert (folder / "interpolate.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "interpolate.pdf").read_bytes().startswith(b"%PDF")


def test_bad_input_is_one_line(runs: list[Path], tmp_path: Path, command: Launch) -> None:
    def refused(*words: object, say: str) -> None:
        done = command("analyze", *words, "--out", tmp_path / "o")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert say in done.stderr

    one = ["landscape", runs[0], "--directions", 1]
    refused("landscape", tmp_path, say="no config.yaml")
    refused(*one, "--points", 1, say="--points: 1: must be a whole number, at least 2")
    refused(*one, "--scale", "nan", say="--scale: nan: must be above 0")
    refused("landscape", runs[0], runs[0], say="given twice")
    refused("interpolate", *runs, "--from", 2, say="--from 2 --to 2: must go upwards")
    assert command("analyze", *one, "--points", 2, "--out", tmp_path / "o").returncode == 0
    refused(*one, "--points", 3, say="made with points=2, not 3; give another --out")
    again = command("analyze", *one, "--points", 3, "--out", tmp_path / "o", "--overwrite")
    assert again.returncode == 0
