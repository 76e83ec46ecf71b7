"""Runs tests/mpi under mpirun; a failure or a hang on one rank fails here."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment, mpirun_command


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_laws_on_ranks(ranks: int) -> None:
    done = subprocess.run(
        [*mpirun_command(ranks), sys.executable, "-m", "pytest", "-q", "-x", "tests/mpi"],
        env={**environment(), "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
