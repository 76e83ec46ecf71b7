"""What pytest says of cases on ranks: each by name, and none at the cost of another."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.thorough

CASES = """
import os
import time

import pytest


@pytest.mark.ranks(1, 3)
def test_passes(world):
    assert world.comm.allreduce(1) == world.size in (1, 3)


@pytest.mark.ranks(3)
def test_fails_on_one(world):
    assert world.rank != 1, "out of cheese"
    world.comm.Barrier()


@pytest.mark.ranks(3)
def test_fails_on_all(world):
    print("said before")
    raise RuntimeError(f"no cheese on {world.rank}")


@pytest.mark.ranks(3)
@pytest.mark.timeout(2)
def test_hangs(world):
    if world.rank == 2:
        world.comm.recv(source=0)


@pytest.mark.ranks(3)
def test_aborts(world):
    if world.rank == 1:
        os.abort()
    world.comm.Barrier()


@pytest.mark.ranks(3)
def test_exits(world):
    os._exit(0)


@pytest.mark.ranks(3)
def test_skips(world):
    pytest.skip("no cheese here")


@pytest.mark.ranks(3)
def test_skips_on_one(world):
    if world.rank == 0:
        pytest.skip("no cheese here")


@pytest.mark.ranks(3)
def test_passes_after_all_that(world):
    assert world.comm.allreduce(1) == 3
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of CASES, in a copy of what runs tests/mpi."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("hpcddl", "data_prep", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("conftest.py", "mpi/conftest.py", "mpi/group.py", "mpi/worker.py"):
        (folder / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    shutil.copytree(ROOT / "tests/warm", folder / "tests/warm")
    (folder / "tests/mpi/test_cases.py").write_text(CASES)
    words = ("-v", "--durations=3", "-p", "no:cacheprovider", "tests/mpi")
    return pytest_on(folder, *words, status=1)


def pytest_on(folder: Path, *words: str, status: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def part(said: str, case: str) -> str:
    """What the report says of a failed case."""
    found = re.search(rf"^_+ {re.escape(case)} _+$(.*?)^[_=]{{4}}", said, re.M | re.S)
    assert found, said
    return found[1]


def test_each_case_is_a_test_by_name(said: str) -> None:
    """One number of ranks after the other; a failure takes no other case with it."""
    found = re.findall(r"^tests/mpi/test_cases.py::(test_\w+)\[(\d) ranks\] (\w+)", said, re.M)
    assert found == [
        ("test_passes", "1", "PASSED"),
        ("test_passes", "3", "PASSED"),
        ("test_fails_on_one", "3", "FAILED"),
        ("test_fails_on_all", "3", "FAILED"),
        ("test_hangs", "3", "FAILED"),
        ("test_aborts", "3", "FAILED"),
        ("test_exits", "3", "FAILED"),
        ("test_skips", "3", "SKIPPED"),
        ("test_skips_on_one", "3", "FAILED"),
        ("test_passes_after_all_that", "3", "PASSED"),
    ]
    assert "6 failed, 3 passed, 1 skipped" in said


def test_a_failure_has_its_rank_s_traceback(said: str) -> None:
    one = part(said, "test_fails_on_one[3 ranks]")
    assert "rank 1 of 3, call:" in one
    assert "AssertionError: out of cheese" in one
    assert re.search(r"^rank 0 did not end within 3 s of another's failure", one, re.M)
    everyone = part(said, "test_fails_on_all[3 ranks]")
    for rank in range(3):
        assert f"rank {rank} of 3, call:" in everyone
        assert f"RuntimeError: no cheese on {rank}" in everyone
    assert "said before" in everyone
    assert "did not end" not in everyone


def test_a_hang_says_which_rank_and_where(said: str) -> None:
    text = part(said, "test_hangs[3 ranks]")
    assert "rank 2 did not end within 2 s (of 3 ranks)" in text
    assert "rank 0 did not" not in text
    assert re.search(r'test_cases.py", line \d+ in test_hangs', text)


def test_an_end_says_so_with_the_job_s_output(said: str) -> None:
    text = part(said, "test_aborts[3 ranks]")
    assert "rank 1 ended (of 3 ranks)" in text
    assert "Fatal Python error: Aborted" in text
    assert re.search(r'test_cases.py", line \d+ in test_aborts', text)
    assert re.search(r"rank \d ended \(of 3 ranks\)", part(said, "test_exits[3 ranks]"))


def test_skips_have_their_reason_and_are_everyone_s(said: str) -> None:
    assert re.search(r"SKIPPED \[1\] tests/mpi/test_cases.py:\d+: no cheese here", said)
    assert "not the same on all ranks" in part(said, "test_skips_on_one[3 ranks]")


def test_durations_are_shown(said: str) -> None:
    assert re.search(r"^2\.\d+s call +tests/mpi/test_cases.py::test_hangs\[3 ranks\]", said, re.M)
