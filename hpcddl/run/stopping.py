"""Signals that tell a run to stop, as a batch system sends them before a time limit.

Ask for SIGUSR2 (`sbatch --signal=B:USR2@180`), because NCCL uses SIGUSR1. SIGTERM has the same
effect: batch systems send it when they preempt or end a job, mostly followed by SIGKILL, which may
or may not leave time for a checkpoint. So SIGTERM does not end a rank at once, nor does a second
one, which launchers that pass signals on send too; only SIGKILL does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
STATUS = os.EX_TEMPFAIL
"""75, the exit status of a run that has stopped with a checkpoint: start it again to go on."""


class Stopped(Exception):
    """The run has stopped on all ranks after the same update, with a checkpoint of it."""


class Notice:
    """What this process has been told: the number of the last signal, 0 for none."""

    def __init__(self) -> None:
        self.signal = 0

    def given(self) -> bool:
        """Whether this process has been told to stop."""
        return self.signal != 0

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: only sets a flag, as the rank may be inside a collective."""
        self.signal = number


@contextmanager
def noticing() -> Iterator[Notice]:
    """Inside, the signals are noted instead of ending the process."""
    notice = Notice()
    before = {number: signal.signal(number, notice.take) for number in SIGNALS}
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
