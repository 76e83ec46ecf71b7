"""Runs started by a launcher: the signal to stop reaches them, however early it comes."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcddl.run.start import train_by
from hpcddl.run.stopping import STATUS

LISTENS = "trap 'exit 75' USR2; touch began; while :; do sleep 0.1; done"


@pytest.mark.parametrize("script", [LISTENS, "touch began; sleep 60"], ids=["listens", "not yet"])
def test_a_signal_while_the_launcher_starts(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before this process knows the launcher's: it is passed on, and the run has stopped."""

    class Told(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            while not Path("began").exists():
                pass
            os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Told)
    before = signal.getsignal(signal.SIGUSR2)
    assert train_by(["sh", "-c", script], []) == STATUS
    assert signal.getsignal(signal.SIGUSR2) == before
