"""Progress reports count everything, and speak seldom where nobody watches."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from hpcddl.common import progress as module
from hpcddl.common.progress import Progress


def test_quick_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(5, "packing") as progress:
        for _ in range(5):
            progress.add()
    assert progress.done == 5
    assert capsys.readouterr().err == ""


def slowly(monkeypatch: pytest.MonkeyPatch, progress_of: int, **options: object) -> None:
    """Adds a part per ten seconds."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress(6 * progress_of, "packing", **options) as progress:  # type: ignore[arg-type]
        for _ in range(6):
            now[0] += 10
            progress.add(progress_of)


def test_long_work_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line per 15 s: with parts 10 s apart, every other one."""
    slowly(monkeypatch, 30)
    assert capsys.readouterr().err.splitlines() == [
        "packing: 60 of 180 utt, 3 per second, 40 s left",
        "packing: 120 of 180 utt, 3 per second, 20 s left",
        "packing: 180 of 180 utt, 3 per second, 0 s left",
    ]


def test_bytes_are_shown_as_gigabytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 2_500_000_000, unit="GB", scale=10**9)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "packing: 5.00 of 15.00 GB, 0.25 per second, 40 s left"


def test_other_ranks_are_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, 30, shown=False)
    assert capsys.readouterr().err == ""


def test_threads_lose_no_count() -> None:
    progress = Progress(40_000, "copying")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(40_000):
            pool.submit(progress.add)
    assert progress.done == 40_000
