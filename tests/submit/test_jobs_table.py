"""`hpcddl jobs`: Slurm's word and the run's own, side by side."""

import json
import os
import time
from pathlib import Path

import pytest

from hpcddl.run.state import RunState, read_state
from hpcddl.submit.job import Job
from hpcddl.submit.jobs import table
from hpcddl.submit.written import FILE, Submitted, read_down, write_down


def write_run(folder: Path, *epochs: float, more: str = "", **summary: bool) -> Path:
    """A run of 10 epochs, 20 seconds each, that has reported at `epochs`."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("epochs: 10\nstart_epoch: 0\n")
    lines = [
        {
            "kind": "train",
            "time": 20 * e,
            "epoch": e,
            "loss": 4 / e,
            "seconds": {"load": 5 * e, "other": 15 * e},
        }
        for e in epochs
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + more)
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_what_is_left_is_as_slow_as_so_far(tmp_path: Path) -> None:
    """7.5 epochs of 20 s, from the last whole line of metrics."""
    evaluation = '{"kind": "evaluation", "time": 60, "epoch": 2}\n'
    run = write_run(tmp_path / "a", 1, 2.5, more=evaluation + '{"kind": "train", "epo')
    assert read_state(run, now=100) == RunState("running", 2.5, 10, 1.6, 150.0)


def test_a_run_that_has_not_begun_and_one_that_has_not_reported(tmp_path: Path) -> None:
    assert read_state(tmp_path) == RunState("-")
    run = write_run(tmp_path / "a")
    assert read_state(run) == RunState("running", 0, 10)
    assert read_state(run, now=time.time() + 61) == RunState("stopped", 0, 10)


def test_the_words_of_runs_that_have_begun(tmp_path: Path) -> None:
    """Silent for more than three times the longest wait so far, 30 s here, and a minute."""
    run = write_run(tmp_path / "a", 1, 2.5)
    assert read_state(run, now=141).word == "stopped" != read_state(run, now=140).word
    assert read_state(write_run(tmp_path / "b", 2, diverged=False)).word == "done"
    assert read_state(write_run(tmp_path / "c", 2, diverged=True)).word == "diverged"
    poor = write_run(tmp_path / "d", 2, diverged=False)
    (poor / "summary.json").write_text('{"diverged": false, "not_above_chance": true}')
    assert read_state(poor).word == "not above chance"
    assert read_state(poor).ended


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", ""),
        ("config.yaml", "a: ["),
        ("config.yaml", "epochs: 3\n"),
        ("summary.json", ""),
        ("summary.json", "[]"),
        ("summary.json", "{}"),
        ("metrics.jsonl", "{}\n"),
        ("metrics.jsonl", "1\n"),
    ],
)
def test_a_damaged_run_is_called_so(name: str, text: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 1, 2, diverged=False)
    (run / name).write_text(text)
    assert read_state(run) == RunState("damaged")


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's tasks one by one, the tasks of a packing counted, the past from the runs."""
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/s/a"), 10, diverged=False)
    write_run(Path("runs/s/b"), 2.5)
    write_run(Path("runs/d"), 4, diverged=True)
    sweep = {"0": "runs/s/a", "1": "runs/s/b", "2": "runs/s/c"}

    def line(job: str, name: str, runs: dict[str, str], output: str) -> Submitted:
        return Submitted(job, "", name, runs, output, 0.0, [])

    lines = [
        line("7", "prep", {}, "slurm/prep-7_%a.out"),
        line("8", "merge", {}, "slurm/merge-8.out"),
        line("9", "s", sweep, "slurm/s-9_%a.out"),
        line("10", "d", {"": "runs/d"}, "slurm/d-10.out"),
    ]
    states = {
        "7_1": "RUNNING",
        "7_2": "RUNNING",
        "7_3": "PENDING",
        "8": "PENDING (Dependency)",
        "9_1": "RUNNING",
        "9_2": "PENDING",
    }
    assert (
        "\n".join(table(lines, states))
        == """\
job  name   state                 run       epoch     loss    left      output
7    prep   2 RUNNING, 1 PENDING                                        slurm/prep-7_%a.out
8    merge  PENDING (Dependency)                                        slurm/merge-8.out
9_0  s      ended                 runs/s/a  10.00/10  0.4000  done      slurm/s-9_0.out
9_1  s      RUNNING               runs/s/b  2.50/10   1.6000  2m30s     slurm/s-9_1.out
9_2  s      PENDING               runs/s/c  -         -       -         slurm/s-9_2.out
10   d      ended                 runs/d    4.00/10   1.0000  diverged  slurm/d-10.out"""
    )


def test_a_submission_is_written_down_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    """With commands in Slurm's place that answer as it does: ids, then a queue."""
    monkeypatch.chdir(tmp_path)
    programs = {
        "sbatch": 'echo "$@" >>asked; echo "$((40 + $(wc -l <asked)));cluster"',
        "squeue": "echo '41_0|RUNNING|None'; echo '41_1|PENDING|Resources'",
        "sacct": "echo '42|CANCELLED by 1000'",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = command("submit", "--array", "0-1", "--report", "mini.table4")
    assert done.stdout == "42\n"
    assert "sweep mini.table4: job 41, output slurm/mini.table4-41_%a.out" in done.stderr
    assert "--dependency=afterany:41 --kill-on-invalid-dep=yes" in Path("asked").read_text()
    shown = command("jobs").stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:]] == [
        ["41_0", "mini.table4", "RUNNING"],
        ["41_1", "mini.table4", "PENDING"],
        ["42", "report", "CANCELLED"],
    ]
    assert len(command("jobs", "42").stdout.splitlines()) == 2


@pytest.mark.parametrize("torn", ['{"job": "4', "{}", "[1]", "\ufffd"])
def test_a_torn_line_costs_no_other(
    torn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a full disk leaves it: it is left out with a warning, and the next begins a line."""
    monkeypatch.chdir(tmp_path)
    Path("slurm").mkdir()
    job = Job("train", "a", ("--output=slurm/%x-%j.out",), ())
    write_down(job, "1", [])
    with open(FILE, "a") as file:
        file.write(torn)
    write_down(job, "2", [])
    assert [line.job for line in read_down()] == ["1", "2"]
    assert capsys.readouterr().err.endswith("slurm/jobs.jsonl: line 2 is torn; left out\n")


def test_without_slurm_nothing_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command("submit", "report", "runs/a")
    assert done.returncode == 2
    assert done.stderr == "hpcddl: error: sbatch: not found; Slurm's commands must be on PATH\n"
    assert not Path("slurm/jobs.jsonl").exists()
    assert command("jobs").stdout.startswith("no jobs in slurm/jobs.jsonl")
