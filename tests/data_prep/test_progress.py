"""Progress reports pass everything on, and speak seldom where nobody watches."""

import pytest

from data_prep import progress as module
from data_prep.progress import progress


def test_quick_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), 5, "packing")) == list(range(5))
    assert capsys.readouterr().err == ""


def test_long_work_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line per 15 s: with items 10 s apart, at 20 s and 40 s; four of six are then done."""
    seconds = iter(range(0, 100, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    list(progress(range(6), 6, "packing"))
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "packing: 2 of 6 utt, 0 per second, 40 s left"
    assert second.startswith("packing: 4 of 6")
    assert third.startswith("packing: 6 of 6")
