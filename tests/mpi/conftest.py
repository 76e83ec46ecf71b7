"""Tests in this folder run on every rank of an MPI job (started by tests/test_mpi.py)."""

import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from mpi4py import MPI

from hpcddl.launcher import promised_size
from hpcddl.world import World


def pytest_ignore_collect() -> bool | None:
    """Without a launcher these files are not collected: tests/test_mpi.py runs them."""
    return None if promised_size(os.environ) else True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure on one rank ends them all: the others may wait for it in a collective."""
    report = yield
    if report.failed:
        rank = MPI.COMM_WORLD.rank
        print(
            f"\nrank {rank}: {item.nodeid}\n{report.longreprtext}", file=sys.__stdout__, flush=True
        )
        MPI.COMM_WORLD.Abort(1)
    return report


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session")
def world(monkeypatch_session: pytest.MonkeyPatch) -> World:
    # One process runs with many partitions of its learners here; a job has one.
    monkeypatch_session.setenv("HOROVOD_DYNAMIC_PROCESS_SETS", "1")
    return World.create()


@pytest.fixture
def tmp_path(world: World) -> Iterator[Path]:
    """One folder for all ranks: pytest's own would be cleaned by each of them."""
    folder = Path(world.comm.bcast(tempfile.mkdtemp() if world.rank == 0 else None))
    yield folder
    world.comm.Barrier()
    if world.rank == 0:
        shutil.rmtree(folder)
