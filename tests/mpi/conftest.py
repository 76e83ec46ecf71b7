"""Each test of this folder runs on all ranks of an MPI job, for each number of ranks that it names.

The mark `ranks(2, 3)` names the numbers; without it a test runs on 2. For each of them pytest shows
a test of its own. In the pytest that a person starts a case is handed to a job of ranks (group.py);
in the job, where each rank is a pytest too (worker.py), it is run.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcddl.cluster.world import World
from tests.mpi.group import Group, Outcome
from tests.mpi.worker import PLUGIN

FOLDER = Path(__file__).parent
PATIENCE_SECONDS = 60.0  # for a case, unless it has a mark `timeout`
GROUP = pytest.StashKey[tuple[int, Group]]()


def is_rank(config: pytest.Config) -> bool:
    """Whether this pytest is a rank of a job."""
    return config.pluginmanager.has_plugin(PLUGIN)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case for each number of ranks; on a rank, for its job's number.

    Last, so that its name is the same on a rank, which collects this folder alone.
    """
    mark = metafunc.definition.get_closest_marker("ranks")
    counts = mark.args if mark else (2,)
    if is_rank(metafunc.config):
        own = int(os.environ["OMPI_COMM_WORLD_SIZE"])
        counts = tuple(n for n in counts if n == own)
    cases = [
        pytest.param(n, marks=[pytest.mark.thorough] if n in (1, 4) and len(counts) > 1 else [])
        for n in counts
    ]
    metafunc.fixturenames.append("ranks")
    metafunc.parametrize("ranks", cases, ids=lambda n: f"{n} ranks")


def ranks_of(item: pytest.Item | None) -> int | None:
    """The number of ranks of one of this folder's cases, None for others."""
    if item is None or FOLDER not in item.path.parents or is_rank(item.config):
        return None
    number: int = item.callspec.params["ranks"]  # type: ignore[attr-defined]
    return number


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases of one number of ranks come together: they share a job."""
    places = [place for place, item in enumerate(items) if ranks_of(item)]
    cases = sorted((items[place] for place in places), key=lambda item: ranks_of(item) or 0)
    for place, case in zip(places, cases, strict=True):
        items[place] = case


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a case on its ranks, in place of this process."""
    number = ranks_of(item)
    if number is None:
        return None
    stash = item.config.stash
    if GROUP not in stash or stash[GROUP][0] != number:
        _close(item.config)
        stash[GROUP] = number, Group(number)
    following = nextitem.nodeid if nextitem and ranks_of(nextitem) == number else None
    mark = item.get_closest_marker("timeout")
    seconds = float(mark.args[0]) if mark else PATIENCE_SECONDS
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports(item, stash[GROUP][1].run(item.nodeid, following, seconds)):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item) -> bool | None:
    """No timer of pytest-timeout's, which would end this process: the group has limits."""
    return True if FOLDER in item.path.parents else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The last job ends."""
    _close(session.config)


def _close(config: pytest.Config) -> None:
    if GROUP in config.stash:
        config.stash[GROUP][1].close()
        del config.stash[GROUP]


def reports(item: pytest.Item, outcome: Outcome) -> list[pytest.TestReport]:
    """The ranks' reports as one test's: passed or skipped on all ranks, or failed."""
    hook = item.config.hook
    ranks = [
        [hook.pytest_report_from_serializable(config=item.config, data=data) for data in one]
        for one in outcome.reports
    ]
    complaints = [
        f"rank {rank} of {len(ranks)}, {one.when}:\n{one.longreprtext}\n"
        + "".join(f"--- {title}\n{text}\n" for title, text in one.sections)
        for rank, own in enumerate(ranks)
        for one in own
        if one.failed
    ]
    complaints += [f"{line} (of {len(ranks)} ranks)" for line in outcome.lost]
    outcomes = {tuple((one.when, one.outcome) for one in own) for own in ranks}
    if not complaints and len(outcomes) > 1:
        complaints = [f"not the same on all ranks: {sorted(outcomes)}"]
    if not complaints:
        for one, *others in zip(*ranks, strict=True):
            one.duration = max(report.duration for report in (one, *others))
            if one.skipped:
                one.longrepr = tuple(one.longrepr)  # which JSON has made a list of
        return ranks[0]
    if outcome.lost and outcome.output:
        complaints.append(f"--- the end of what the ranks printed\n{outcome.output}")
    return [
        _report(item, "setup", 0.0, None),
        _report(item, "call", outcome.seconds, "\n".join(complaints)),
        _report(item, "teardown", 0.0, None),
    ]


def _report(item: pytest.Item, when: Any, seconds: float, fault: str | None) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed" if fault else "passed",
        longrepr=fault,
        when=when,
        duration=seconds,
    )


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
