"""Starts `hpcddl train`, on the ranks of this job or by a launcher from outside a job."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from hpcddl.commands.table import call
from hpcddl.common.errors import UserError, warn
from hpcddl.run.state import read_state
from hpcddl.run.stopping import STATUS


@dataclass(frozen=True)
class TrainCommand:
    """The command that trains one run, or continues it where it was stopped.

    Attributes:
        recipe: a packaged recipe, or a YAML file.
        overrides: words `key=value` of it.
        folder: the run directory.
        stage: as in `hpcddl train --stage`; None: the data is read where it is stored.
    """

    recipe: str
    overrides: tuple[str, ...]
    folder: Path
    stage: str | None = None

    @property
    def words(self) -> list[str]:
        """The words behind `hpcddl train`."""
        staged = ["--stage", self.stage] if self.stage is not None else []
        return [self.recipe, *self.overrides, "--out", str(self.folder), *staged, "--resume"]

    def text(self, launcher: Sequence[str]) -> str:
        """Writes the whole command as one types it."""
        return shlex.join([*launcher, "hpcddl", "train", *self.words])

    def here(self) -> int:
        """Trains on the ranks of this job; the exit status."""
        return call("train", self.words)

    def by(self, launcher: Sequence[str], log: IO[str] | None = None) -> int:
        """Trains on the ranks that `launcher` starts; the exit status, see `train_by`.

        The status is also 1 if the launcher ends with 0 but the run has not ended: mpirun may do
        so after a lost node.
        """
        status = train_by(launcher, self.words, log)
        if status == 0 and not read_state(self.folder).ended:
            warn(f"{self.folder}: the launcher reports success, but the run has not ended")
            return 1
        return status


def parse_launcher(text: str) -> list[str]:
    """Splits a launcher's command line into words.

    Raises:
        UserError: there is none, or a quote is left open.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--launcher {text}: {error}") from None
    if not words:
        raise UserError("--launcher '': must be a command, such as 'mpirun -np 4'")
    return words


def train_by(launcher: Sequence[str], words: Sequence[str], log: IO[str] | None = None) -> int:
    """Runs `LAUNCHER hpcddl train WORDS`; its exit status. Output goes to `log`, if given.

    SIGUSR2 is passed on to the run, which then stops by itself (status 75, see stopping.py). If
    the run does not handle signals yet, it dies of it, which counts as stopped too. An interrupt
    (Ctrl-C) ends the run and is then raised here.

    Raises:
        UserError: the launcher cannot be started.
    """
    command = [*launcher, sys.executable, "-m", "hpcddl.cli", "train", *words]
    stderr = None if log is None else subprocess.STDOUT
    process: subprocess.Popen[bytes] | None = None
    told: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if process is not None:
            act(process, number)

    def act(running: subprocess.Popen[bytes], number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        running.send_signal(number)

    # First: a signal while the launcher starts would end this process, and leave the launcher.
    before = {signal.SIGUSR2: signal.signal(signal.SIGUSR2, take)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, take)
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=stderr)
        for number in set(told):
            act(process, number)
        status = process.wait()
    except OSError as error:
        raise UserError(f"--launcher {shlex.join(launcher)}: {error.strerror}") from None
    except KeyboardInterrupt:
        if process is not None:
            process.terminate()  # not killed: a launcher must have the time to end its ranks
            process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return STATUS if signal.SIGUSR2 in told and status == -signal.SIGUSR2 else status
