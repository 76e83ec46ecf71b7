"""`hpcddl doctor` on real ranks: where all is well, and where it was broken on purpose."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcddl.cli import main
from hpcddl.doctor import CHECKS
from tests.conftest import ROOT, Launch, environment, mpirun_command

pytestmark = pytest.mark.thorough

PROGRAM = [sys.executable, "-m", "hpcddl.cli", "doctor", "--json"]
MPIRUN = mpirun_command(1)[:1]


def run(*words: object, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)),
        env={**environment(), **changes},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(done.stdout)["findings"]
    return found


def faults(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {name for name, one in findings(done).items() if one["verdict"] == "fault"}


@pytest.fixture(scope="module")
def mounts() -> None:
    """Skips, saying so, where nothing may be mounted."""
    done = run("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt")
    if done.returncode:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")


def test_alone(hpcddl: Launch, tmp_path: Path) -> None:
    """A line per check and one that sums up; nothing is left in the folder, or made."""
    done = hpcddl("doctor", "--out", tmp_path / "runs/a")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "Python" in lines[0]
    assert "torch" in lines[0]
    named = [line[7:].split("  ")[0] for line in lines[1:-1] if "fix: " not in line]
    assert named == list(CHECKS)
    assert lines[-1].startswith("training can work: faults 0, warnings ")
    assert list(tmp_path.iterdir()) == []


def test_two_ranks(tmp_path: Path) -> None:
    done = run(*mpirun_command(2), *PROGRAM, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] in ("ok", "warn")
    assert [one["rank"] for one in report["ranks"]] == [0, 1]
    assert all(one["size"] == one["promised"] == 2 for one in report["ranks"])
    (mpi,) = {tuple(one["software"]["mpi_files"]) for one in report["ranks"]}
    assert len(mpi) == 1
    assert {one["software"]["horovod_mpi_file"] for one in report["ranks"]} == set(mpi)
    # One clock read twice: as far apart as the messages took, at most.
    ahead, error = (report["ranks"][1][f"clock{name}_seconds"] for name in ("", "_error"))
    assert abs(ahead) <= error + 1e-4
    assert list(tmp_path.iterdir()) == []


def test_worlds_of_one(tmp_path: Path) -> None:
    """A launcher that MPI knows nothing of starts three ranks: one report, and all end with 1."""
    starts = [
        subprocess.Popen(
            [*PROGRAM, "--out", str(tmp_path)],
            env={**environment(), "PMI_SIZE": "3", "PMI_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    printed = [process.communicate(timeout=120)[0] for process in starts]
    assert [process.returncode for process in starts] == [1, 1, 1]
    assert printed[1:] == ["", ""]
    found = json.loads(printed[0])["findings"]["ranks"]
    assert found["verdict"] == "fault"
    assert found["found"] == "3 ranks were started, but MPI joined 1"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: nothing to bind away from")
def test_all_ranks_on_one_core(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    done = run("taskset", "-c", core, *mpirun_command(2), *PROGRAM, "--out", tmp_path)
    assert (done.returncode, faults(done)) == (1, {"cores"}), done.stdout + done.stderr
    assert f"2 ranks on cores {core} of" in findings(done)["cores"]["found"]


def test_a_folder_of_one_node_only(mounts: None, tmp_path: Path) -> None:
    """The second rank has another disk mounted at the same path."""
    other = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh"]
    own = [*PROGRAM, "--out", str(tmp_path)]
    done = run(
        *MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", 1, *own, ":", "-np", 1, *other, *own
    )
    assert (done.returncode, faults(done)) == (1, {"run folder"}), done.stdout + done.stderr
    assert "is not that of rank 1" in findings(done)["run folder"]["found"]
    assert [one["storage"]["filesystem"] == "tmpfs" for one in json.loads(done.stdout)["ranks"]][1]


def test_small_shared_memory(mounts: None, tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    done = run(
        *("unshare", "-m", "sh", "-c", mount, "sh"),
        *(*mpirun_command(2), *PROGRAM, "--out", tmp_path),
    )
    found = json.loads(done.stdout[done.stdout.index("{") :])["findings"]["/dev/shm"]
    assert found["verdict"] == "warn"  # a fault where there are GPUs
    assert "1 MiB free" in found["found"]
    assert "not enough space for /dev/shm" in done.stdout + done.stderr  # Open MPI's own word


def test_a_folder_that_cannot_be_written(mounts: None, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o ro none {tmp_path} && exec "$@"'
    done = run("unshare", "-m", "sh", "-c", mount, "sh", *PROGRAM, "--out", tmp_path)
    assert (done.returncode, faults(done)) == (1, {"run folder"}), done.stdout + done.stderr
    assert "Read-only file system" in findings(done)["run folder"]["found"]


@pytest.mark.parametrize("library", ["horovod", "mpi4py"])
def test_a_library_that_does_not_load(library: str, tmp_path: Path) -> None:
    """Found by every command's own path; named with its reason, and the other checks still run."""
    package = tmp_path / library
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = run(*PROGRAM, "--out", tmp_path, PYTHONPATH=paths)
    assert (done.returncode, done.stderr) == (1, "")
    found = findings(done)["libraries"]
    assert found["found"].startswith(f"{library} does not load on ")
    assert found["found"].endswith(": undefined symbol: _ZN3c10")
    assert found["mend"]


def test_ranks_that_never_come(tmp_path: Path) -> None:
    """The doctor does not wait for ever where training would."""
    idle = [sys.executable, "-c", "from mpi4py import MPI; import time; time.sleep(100)"]
    ours = [*PROGRAM, "--out", str(tmp_path), "--patience", "2"]
    done = run(
        *MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", 1, *ours, ":", "-np", 1, *idle
    )
    assert done.returncode == 1
    assert re.search(r"waited 2 s for the other ranks: .*OMPI_MCA_btl_tcp_if_include", done.stderr)


def test_facts_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Slurm and OpenMP were told is reported; a job of two nodes with ranks on one is not."""
    values: dict[str, Any] = {"SLURM_JOB_ID": 7, "SLURM_JOB_NUM_NODES": 2, "OMP_NUM_THREADS": 64}
    for name, value in {**values, "OMPI_COMM_WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["doctor", "--json", "--out", str(tmp_path)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["findings"]["nodes"]["verdict"] == "fault"
    assert "64 threads of 1 rank" in report["findings"]["threads"]["found"]
    assert report["ranks"][0]["slurm"]["job"] == "7"
