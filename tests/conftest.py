"""What all tests share: how to start ranks, and where the real data lies."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hpcddl.cli import main

ROOT = Path(__file__).parent.parent

# Before torch is imported: on tensors as small as the tests', threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Launch = Callable[..., subprocess.CompletedProcess[str]]


def mpirun_command(ranks: int) -> list[str]:
    """mpirun for `ranks` ranks on a machine that may have fewer cores."""
    mpirun = Path(sys.executable).parent / "mpirun"
    found = str(mpirun) if mpirun.exists() else "mpirun"
    return [found, "-np", str(ranks), "--oversubscribe", "--bind-to", "none"]


def environment() -> dict[str, str]:
    """This environment, with one thread per rank and mpirun allowed for root."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # As the command itself has it where cores are scarce.
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }


def run_python(
    *words: object, ranks: int | None = None, timeout: float = 120, **changes: str
) -> subprocess.CompletedProcess[str]:
    """This Python with `words`, on `ranks` ranks (None: without a launcher), and its output."""
    launcher = mpirun_command(ranks) if ranks else []
    return subprocess.run(
        [*launcher, sys.executable, *map(str, words)],
        env={**environment(), **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def hpcddl() -> Launch:
    """Runs the command on ranks (see run_python) and returns its output."""
    return partial(run_python, "-m", "hpcddl.cli")


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in this process, as a single learner: ten times faster than a launch."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        texts = list(map(str, words))
        monkeypatch.setattr(sys, "argv", ["hpcddl", *texts])
        capsys.readouterr()
        status = main(texts)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(texts, status, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real test data; its tests skip, saying so, where it is not."""
    folder = Path(os.environ.get("HPCDDL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not a folder (set HPCDDL_TEST_DATA)")
    return folder.resolve()
