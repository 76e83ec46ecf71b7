"""Told to stop, damaged, out of disk, two at once: what a run loses, and what it does not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcddl.run import checkpoint, saver, set_up
from hpcddl.training import evaluate
from hpcddl.training.position import Position
from tests.conftest import ROOT, Launch, environment, run_python
from tests.synthetic import write_recipe, write_shards, write_text
from tests.test_train import lines, refused, summary, without_times

# Every recipe of two folders in one launch: those that were stopped go on.
EVERY = """
import sys
from pathlib import Path
from hpcddl.cli import main
for recipe in sorted(Path(sys.argv[1]).glob("*/*.yaml")):
    if main(["train", str(recipe), "--resume", "--out", str(recipe.with_suffix(""))]):
        sys.exit(f"{recipe} failed")
"""

# Several runs in one launch. Each sends itself a real signal at a chosen call: of the loss, so
# between two updates, or of an evaluation's input. "collective": rank 0 comes a second late, and
# half of it later rank 1, which by then waits for it inside MPI, is told. Rounds are of one step.
TELL = """
import json, os, sys, threading, time
import mpi4py.MPI as MPI
import hpcddl.training.accumulate, hpcddl.run.agreement, hpcddl.training.evaluate
from hpcddl.cli import main
hpcddl.run.agreement.LONGEST = 1
rank = MPI.COMM_WORLD.rank
places = [
    (hpcddl.training.accumulate, "classification_loss"),
    (hpcddl.training.evaluate, "network_input"),
]
reals = [getattr(*place) for place in places]
def train(recipe, when, whom, number, call):
    def tell():
        if whom == "all" or rank == 1:
            os.kill(os.getppid() if whom == "mpirun" else os.getpid(), number)
            time.sleep(0.5 * (whom == "mpirun"))  # to come back through mpirun
    def patched(*words):
        nonlocal call
        call -= 1
        if call == 0 and when == "collective":
            threading.Timer(0.5, tell).start()
            time.sleep(rank == 0)
        elif call == 0:
            tell()
        return real(*words)
    for place, real in zip(places, reals):
        setattr(*place, real)
    place, real = places[when == "evaluation"], reals[when == "evaluation"]
    setattr(*place, patched)
    return main(["train", recipe, "--out", recipe.removesuffix(".yaml")])
statuses = [train(*case) for case in json.loads(sys.argv[1])]
sys.exit(75 if set(statuses) == {75} else 1)
"""

USR2, TERM = signal.SIGUSR2, signal.SIGTERM

# name: strategy; when it is told, whom, by what, at which call; after how many updates it stops.
CASES: dict[str, tuple[str, tuple[str, str, int, int], set[int]]] = {
    "ssgd": ("ssgd", ("compute", "mpirun", USR2, 7), set(range(7, 11))),
    "ssgd collective": ("ssgd", ("collective", "rank 1", USR2, 17), {18}),
    "dpsgd": ("dpsgd", ("compute", "rank 1", USR2, 7), {8}),
    "dpsgd delayed": (
        "{name: dpsgd, topology: full, delayed: true}",
        ("compute", "all", TERM, 7),
        {8},
    ),
    "dpsgd evaluation": ("dpsgd", ("evaluation", "rank 1", USR2, 3), {20}),
    # Its fifth is the second of two that the fourth update's diagnosis takes before it.
    "dpsgd diagnosed": (
        "dpsgd\ndiagnostics: {every: 3, samples: 50}",
        ("compute", "rank 1", USR2, 5),
        {5},
    ),
    "local_sgd": (
        "{name: local_sgd, steps: 3, momentum: 0.3, compression: sign}",
        ("collective", "rank 1", USR2, 6),
        {7},
    ),
    "majority_vote": (
        "majority_vote\noptimizer: sign_sgd\nschedule: {name: constant, rate: 0.001}",
        ("evaluation", "all", TERM, 1),
        {10},
    ),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


def recipe_of(case: str, folder: Path, shards: Path) -> Path:
    """With dropout, which draws random numbers of each learner's own."""
    folder.mkdir(exist_ok=True)
    more = "log_every: 1\ncheckpoint: {every_epochs: 99}"
    recipe = write_recipe(folder / f"{case}.yaml", shards, CASES[case][0], more)
    recipe.write_text(recipe.read_text().replace("layers: 1", "dropout: 0.3, layers: 1"))
    return recipe


@pytest.fixture(scope="module")
def stopped(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Runs left alone in `whole`, and in `runs` the same, stopped and gone on; what those said."""
    folder = tmp_path_factory.mktemp("stopped")
    told = []
    for case, (_, words, _) in CASES.items():
        recipe_of(case, folder / "whole", shards)
        told.append((str(recipe_of(case, folder / "runs", shards)), *words))
    done = run_python("-c", TELL, json.dumps(told), ranks=2, timeout=240, cold=True)
    assert done.returncode == 75, done.stdout + done.stderr
    assert not list(folder.glob("runs/*/summary.json"))
    on = run_python("-c", EVERY, folder, ranks=2, timeout=240)
    assert on.returncode == 0, on.stderr
    return folder, done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_is_bit_for_bit_the_same(case: str, stopped: tuple[Path, str]) -> None:
    """Exit 75 with a checkpoint of the update that all agreed on; then the run left alone."""
    folder, said = stopped
    _, (_, _, number, _), updates = CASES[case]
    run, whole = folder / "runs" / case, folder / "whole" / case
    name = re.escape(f"{run}/checkpoints/step-")
    found = re.search(rf"stopped by (\w+) after (\d+) updates; --resume goes on from {name}", said)
    assert found, said
    assert found[1] == signal.Signals(number).name
    assert int(found[2]) in updates
    assert summary(run)["weights_sha256"] == summary(whole)["weights_sha256"]
    for kind in ("train", "evaluation", "diagnostics"):
        same = [without_times(record) for record in lines(run, kind)]
        assert bool(same) == (kind != "diagnostics" or case == "dpsgd diagnosed")
        assert same == [without_times(record) for record in lines(whole, kind)]


ORDERS = {
    "exact": "shuffle: exact",
    "blocks": "shuffle: blocks, block: 8, buffer: 24",
    "kept": "reshuffle: never",
    "text": "name: text, bptt: 6, heldout_streams: 3",
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_evaluation_that_was_given_up_is_repeated(
    name: str, shards: Path, tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkpoint of all the updates of an epoch, in any order of the data, streams too."""
    text = name == "text"
    path = write_text(tmp_path / "text") if text else shards
    recipe = write_recipe(tmp_path / "r.yaml", path, "ssgd", "log_every: 1")
    words = [f"data={{name: shards, path: {path}, {ORDERS[name]}}}"]
    if text:
        words = [f"data={{path: {path}, {ORDERS[name]}}}", "model={name: lstm_lm, cells: 8}"]
    words = ["train", recipe, *words, "epochs=2", "--resume", "--out"]
    assert command(*words, tmp_path / "whole").returncode == 0
    real = evaluate.network_input

    def told(*others: Any) -> Any:
        monkeypatch.setattr(evaluate, "network_input", real)
        os.kill(os.getpid(), USR2)
        return real(*others)

    monkeypatch.setattr(evaluate, "network_input", told)
    done = command(*words, tmp_path / "run")
    assert done.returncode == 75
    steps = lines(tmp_path / "run", "train")[-1]["step"]
    assert f"stopped by SIGUSR2 after {steps} updates" in done.stdout
    assert lines(tmp_path / "run", "evaluation") == []
    assert f"resumed after {steps} updates, in epoch 1" in command(*words, tmp_path / "run").stdout
    for kind in ("train", "evaluation"):
        same = [without_times(record) for record in lines(tmp_path / "run", kind)]
        assert same == [without_times(record) for record in lines(tmp_path / "whole", kind)]
    checksums = [summary(tmp_path / run)["weights_sha256"] for run in ("run", "whole")]
    assert checksums[0] == checksums[1]


@pytest.fixture
def finished(shards: Path, tmp_path: Path, command: Launch) -> tuple[list[object], Path]:
    """The command of a run of three epochs and its folder, which holds a checkpoint of each."""
    more = "log_every: 1\ncheckpoint: {keep_last: 9}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    words = ["train", recipe, "--resume", "--out", run]
    assert command(*words).returncode == 0
    return words, run


def names(run: Path) -> set[str]:
    return {folder.name for folder in (run / "checkpoints").iterdir()}


def flip(path: Path) -> None:
    """Alters one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


LEARNER, MANIFEST = "learner-00000.pt", "manifest.json"

DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "flipped": (LEARNER, flip),
    "cut": (LEARNER, lambda path: os.truncate(path, path.stat().st_size - 1)),
    "empty": (LEARNER, lambda path: path.write_bytes(b"")),
    "missing": (LEARNER, Path.unlink),
    "manifest flipped": (MANIFEST, flip),
    "manifest's count": (
        MANIFEST,
        lambda path: path.write_text(path.read_text().replace('"steps": 30', '"steps": 20')),
    ),
    "manifest cut": (MANIFEST, lambda path: os.truncate(path, 99)),
    "manifest missing": (MANIFEST, Path.unlink),
}


def test_every_damage_is_skipped_for_the_checkpoint_before(
    finished: tuple[list[object], Path], tmp_path: Path, command: Launch
) -> None:
    """A warning, the damaged one set aside, and the run that was: weights, losses, checkpoints."""
    words, run = finished
    whole, untouched = tmp_path / "whole", {"epoch-0001", "epoch-0002", "epoch-0003"}
    (run / "summary.json").rename(tmp_path / "summary.json")
    shutil.copytree(run, whole)
    for file, damage in DAMAGE.values():
        damage(run / "checkpoints" / "epoch-0003" / file)
        # Of a job that was killed while it wrote.
        (run / "checkpoints" / ".step-00000029.partial").mkdir()
        done = command(*words)
        assert done.returncode == 0, done.stderr
        (warning,) = done.stderr.splitlines()
        assert warning.startswith(f"hpcddl: warning: {run}/checkpoints/epoch-0003/{file}: ")
        assert warning.endswith("; going on from epoch-0002")
        assert "resumed after 20 updates, in epoch 3" in done.stdout
        expected = json.loads((tmp_path / "summary.json").read_text())
        assert summary(run)["weights_sha256"] == expected["weights_sha256"]
        for kind in ("train", "evaluation"):
            same = [without_times(record) for record in lines(run, kind)]
            assert same == [without_times(record) for record in lines(whole, kind)]
        assert names(run) == untouched | {"epoch-0003.damaged"}
        (run / "summary.json").unlink()


def test_nothing_whole_is_no_fresh_start(
    finished: tuple[list[object], Path], command: Launch
) -> None:
    """Where all checkpoints are damaged the run is refused, and nothing is set aside."""
    words, run = finished
    (run / "summary.json").unlink()
    before = names(run)
    for name in before:
        flip(run / "checkpoints" / name / LEARNER)
    refused(command(*words), "no checkpoint is whole", "epoch-0001", "epoch-0002", "epoch-0003")
    assert names(run) == before


HOLDER = """
import sys, time
from pathlib import Path
from hpcddl.run.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
time.sleep(60)
"""


def test_a_second_job_is_refused_until_the_first_is_gone(
    finished: tuple[list[object], Path], command: Launch
) -> None:
    """Who holds the folder, by process, host and job; SIGKILL of the holder lets go of it."""
    words, run = finished
    (run / "summary.json").unlink()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, run],
        env={**environment(), "SLURM_JOB_ID": "4711"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "taken\n"
        before = (run / "metrics.jsonl").stat().st_mtime_ns
        done = command(*words)
        holder.kill()
    who = f"process {holder.pid} on {os.uname().nodename}, Slurm job 4711"
    refused(done, f"--out {run}: another job trains there: {who}")
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    assert command(*words).returncode == 0
    assert (run / ".lock").read_text() == ""


def test_of_two_jobs_that_begin_at_once_one_is_refused(
    shards: Path, tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one, which had found no run when it looked."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    words = ["train", recipe, "--out", run]
    real = set_up.learner

    def learner(*others: Any, **options: Any) -> Any:
        monkeypatch.setattr(set_up, "learner", real)
        assert command(*words).returncode == 0
        return real(*others, **options)

    monkeypatch.setattr(set_up, "learner", learner)
    refused(command(*words), f"--out {run}: holds a run")
    assert summary(run)["epoch"] == 3


def test_where_locks_do_not_reach_the_first_job_ends(
    shards: Path, tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node's job has written its name there: no checkpoint is written over its own."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    real = saver.Saver.__call__

    def call(self: saver.Saver, position: Position) -> None:
        if position.steps == 15:
            other = {"host": "n2", "pid": "7", "job": "", "token": "ab"}
            (run / ".lock").write_text(json.dumps(other))
        real(self, position)

    monkeypatch.setattr(saver.Saver, "__call__", call)
    done = command("train", recipe, "--out", run)
    refused(done, "another job has begun there: process 7 on n2; this one ends without writing")
    assert names(run) == {"epoch-0001"}
    assert json.loads((run / ".lock").read_text())["host"] == "n2"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB (as root; else the tests skip, saying so)."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("full_at", ["epoch-0002", "epoch-0003"])
def test_a_full_disk_costs_the_checkpoint_and_not_the_run(
    full_at: str,
    shards: Path,
    small_disk: Path,
    tmp_path: Path,
    command: Launch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one before stays, no part is left, a warning says why; the last one is not done without.

    The disk is full to some pages, which the log still finds, while that checkpoint is written.
    """
    more = "checkpoint: {keep_last: 1}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), small_disk / "run"
    real, ballast, left = checkpoint.save, small_disk / "ballast", []

    def save(folder: Path, world: Any, position: Any, *rest: Any) -> None:
        name = checkpoint.folder_of(folder, position).name
        if name == full_at:
            disk = os.statvfs(small_disk)
            ballast.write_bytes(bytes((disk.f_bavail - 8) * disk.f_frsize))
        try:
            real(folder, world, position, *rest)
        finally:
            left.append(names(run))
            ballast.unlink(missing_ok=True)

    monkeypatch.setattr(checkpoint, "save", save)
    words = ["train", recipe, "model.cells=48", "--resume", "--out", run]
    done = command(*words)
    fault = f"checkpoint {run}/checkpoints/{full_at}: not written: No space left on device"
    if full_at == "epoch-0003":
        refused(done, fault)
        assert not (run / "summary.json").exists()
        assert left == [{"epoch-0001"}, {"epoch-0002"}, {"epoch-0002"}]
        full_at = ""
        assert "resumed after 20 updates" in command(*words).stdout
    else:
        assert done.returncode == 0, done.stderr
        assert f"hpcddl: warning: {fault}; training goes on\n" in done.stderr
        assert left == [{"epoch-0001"}, {"epoch-0001"}, {"epoch-0003"}]
    assert command("train", recipe, "model.cells=48", "--out", tmp_path / "else").returncode == 0
    assert summary(run)["weights_sha256"] == summary(tmp_path / "else")["weights_sha256"]


def test_every_minutes(
    shards: Path, tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rank 0's clock, from the last checkpoint on, whatever made that one; the same weights.

    Here an update takes a minute; the round that finds an interval over ends an update later.
    """
    monkeypatch.setattr("hpcddl.run.agreement.LONGEST", 1)
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(saver, "time", type("", (), {"monotonic": lambda: float(now[0])}))
    now = [next(clock)]
    real = saver.Saver.__call__

    def call(self: saver.Saver, position: Position) -> None:
        now[0] = next(clock)
        real(self, position)

    monkeypatch.setattr(saver.Saver, "__call__", call)
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    checksums = []
    for minutes, expected in ((0, set()), (4, {"step-00000005", "step-00000010"})):
        run = tmp_path / str(minutes)
        options = f"checkpoint={{every_epochs: 99, keep_last: 99, every_minutes: {minutes}}}"
        done = command("train", recipe, "epochs=1", options, "--out", run)
        assert done.returncode == 0, done.stderr
        assert names(run) == expected | {"epoch-0001"}
        checksums.append(summary(run)["weights_sha256"])
    assert checksums[0] == checksums[1]
