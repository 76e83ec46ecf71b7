"""How a run is told from outside to stop, as a batch system tells it before its time is over.

SIGUSR2 is the signal to ask for (`sbatch --signal=B:USR2@300`): NCCL has SIGUSR1. SIGTERM counts
too, for it is what batch systems send by themselves where they preempt or end a job; who follows it
up with SIGKILL leaves the time for a checkpoint or does not, and nothing is lost by trying. So a
rank does not die of SIGTERM, nor of a second one, which launchers that pass signals on send along
with the first: SIGKILL is what ends it at once.
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
    """On all ranks, after the same update, with a checkpoint of it on disk."""


class Notice:
    """What this process has been told: the number of the last signal, 0 for none."""

    def __init__(self) -> None:
        self.signal = 0

    def given(self) -> bool:
        """Whether this process has been told to stop."""
        return self.signal != 0

    def take(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. Only a flag: the ranks may be in the midst of a collective."""
        self.signal = number


@contextmanager
def noticing() -> Iterator[Notice]:
    """Inside, the signals are taken notice of instead of ending the process."""
    notice = Notice()
    before = {number: signal.signal(number, notice.take) for number in SIGNALS}
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
