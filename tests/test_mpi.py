"""Runs tests/mpi under mpirun; a failure or a hang on one rank fails here."""

import pytest

from tests.conftest import run_python


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_laws_on_ranks(ranks: int) -> None:
    words = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/mpi")
    done = run_python(*words, ranks=ranks, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
