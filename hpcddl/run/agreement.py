"""Tells all learners, while they train, what only one of them knows, such as a signal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hpcddl.cluster.world import AgreedError
from hpcddl.run.stopping import Stopped

ROUND_SECONDS = 1.0
LONGEST = 16  # steps, so that a round ends soon also where steps grow long


@dataclass(frozen=True)
class Found:
    """What a round found: whether a learner was told to stop; whether rank 0's interval is over."""

    stop: bool
    due: bool


class Agreement:
    """A non-blocking maximum over all learners, in rounds of about a second.

    A round begins with what each learner knows at one step. It ends some steps later, after the
    same number of steps on all learners, which depends on the slowest learner's speed in the
    round before. So all learners get the result at the same step. A learner waits only for
    others that are a whole round behind; within a round learners may run ahead of each other.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        # Its own: rounds are under way while the learners average.
        self._comm = comm.Dup()
        self._mine = np.zeros(3)  # told to stop, interval over, seconds per step
        self._all = np.zeros(3)
        self._request: MPI.Request | None = None
        self._length = 1  # steps of this round
        self._left = 0  # steps until it ends
        self._began = time.monotonic()

    def step(self, stop: bool, due: bool) -> Found | None:
        """Call it at each step, on all learners; returns at the end of a round what it found.

        What a learner reports in the middle of a round counts in the next one.
        """
        found = None
        if self._request is not None:
            self._left -= 1
            if self._left:
                # Large communicators take several messages, which advance only in calls of MPI.
                self._request.Test()
                return None
            found = self._end()
        now = time.monotonic()
        self._mine[:] = stop, due, (now - self._began) / self._length
        self._began = now
        if found is not None:
            self._length = steps_of_a_round(self._all[2])
        self._left = self._length
        self._request = self._comm.Iallreduce(self._mine, self._all, MPI.MAX)
        return found

    def close(self) -> None:
        """Ends the round under way. Collective, after the same step."""
        if self._request is not None:
            self._end()
        self._comm.Free()

    def _end(self) -> Found:
        assert self._request is not None
        self._request.Wait()
        self._request = None
        return Found(bool(self._all[0]), bool(self._all[1]))


@contextmanager
def agreeing(comm: MPI.Intracomm) -> Iterator[Agreement]:
    """Inside, the learners of `comm` agree; the last round ends where all leave together."""
    agreement = Agreement(comm)
    try:
        yield agreement
    except (AgreedError, Stopped):
        agreement.close()
        raise
    agreement.close()


def steps_of_a_round(seconds_per_step: float) -> int:
    """Returns how many steps fit into ROUND_SECONDS: at least 1, at most LONGEST."""
    return max(1, min(LONGEST, int(ROUND_SECONDS / max(seconds_per_step, 1e-9))))
