"""Runs started by a launcher: the signal to stop reaches them, however early it comes."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcddl.commands.start import train_by
from hpcddl.run.stopping import STATUS

LISTENS = "trap 'exit 75' USR2; touch began; while :; do sleep 0.1; done"


@pytest.mark.parametrize("script", [LISTENS, "touch began; sleep 60"], ids=["listens", "not yet"])
def test_a_signal_while_the_launcher_starts(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before this process knows the launcher's: it is passed on, and the run has stopped."""
    monkeypatch.chdir(tmp_path)
    told_while_starting(signal.SIGUSR2, monkeypatch)
    before = signal.getsignal(signal.SIGUSR2)
    assert train_by(["sh", "-c", script], []) == STATUS
    assert signal.getsignal(signal.SIGUSR2) == before


def test_an_interrupt_while_the_launcher_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is ended first, so that nothing goes on without this process."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = told_while_starting(signal.SIGINT, monkeypatch)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_by(["sh", "-c", "touch began; exec sleep 60"], [])
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def told_while_starting(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sends this process a signal when a process has begun, before `Popen` returns it."""
    started = []

    class Told(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            while not Path("began").exists():
                pass
            os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Told)
    return started
