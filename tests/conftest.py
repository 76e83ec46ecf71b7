"""What all tests share: how to start ranks, and where the real data lies."""

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hpcddl.cli import main
from hpcddl.cluster import mpi_start
from tests.warm.start import warm_python

ROOT = Path(__file__).parent.parent

# Before torch is imported: on tensors as small as the tests', threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ranks that wait for others, mostly for slower ones to start, leave the cores to them: Open MPI's
# own way of yielding keeps a core busy for each.
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
os.environ.setdefault("OMPI_MCA_threads_pthreads_yield_strategy", "nanosleep")
os.environ.setdefault("OMPI_MCA_threads_pthreads_nanosleep_time", "200000")
# And before MPI starts in this process, whichever test is the first to use it.
mpi_start.prepare(os.environ)

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
    }


def run_python(
    *words: object,
    ranks: int | None = None,
    timeout: float = 120,
    cold: bool = False,
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    """This Python with `words`, on `ranks` ranks (None: without a launcher), and its output.

    Args:
        cold: starts Python anew. Else ranks are forked from a process that has all libraries
            imported (tests/warm), which changes nothing but the time; not where the start itself
            is the subject: what is imported, who a rank's parent is, what ends it.
        changes: variables of the environment; libraries may read them when they are imported, so
            these processes start cold.
    """
    launcher = mpirun_command(ranks) if ranks else []
    python = [sys.executable] if cold or changes else warm_python()
    return subprocess.run(
        [*launcher, *python, *map(str, words)],
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """What shares a cluster, a job of ranks or a file's fixtures stays in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False  # it would undo the order of collection, see below
    return Scheduling(config, log)


def scope(nodeid: str) -> str:
    """Tests of one scope run in one process, in their order."""
    if nodeid.startswith("tests/slurm/"):
        return "slurm"
    ranks = re.search(r"\[.*?(\d+) ranks", nodeid) if nodeid.startswith("tests/mpi/") else None
    return f"mpi {ranks[1]}" if ranks else nodeid.partition("::")[0]


def pytest_collection_finish() -> None:
    """What is there by now stays: garbage collections need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slurm first: its tests mostly wait, and other processes have the cores meanwhile."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/slurm/"))
