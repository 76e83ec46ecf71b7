"""When learners that take local steps average, and which of them do."""

from __future__ import annotations

from typing import Literal

from hpcddl.strategies.local_steps import LocalSteps

Whom = Literal["nobody", "block", "all"]


class Period:
    """Every H steps a block averages; every H * H^b steps all do, and the block does not.

    Paper B eq. 2 and app. D; H may grow with the epoch.

    Args:
        local_steps: H by epoch.
        block_steps: H^b; 1: there are no blocks.
    """

    def __init__(self, local_steps: LocalSteps, block_steps: int = 1) -> None:
        self.local_steps, self.block_steps = local_steps, block_steps
        self.since = 0
        """Local steps since the last average."""
        self.rounds = 0
        """Averages of the block since the last one of all."""

    def step(self, epoch: float) -> Whom:
        """Counts one local step; who averages after it."""
        self.since += 1
        return self._average() if self.since >= self.local_steps(epoch) else "nobody"

    def step_of_all(self) -> Whom:
        """Counts one local step after which all average, whatever the period."""
        self.since = self.rounds = 0
        return "all"

    def _average(self) -> Whom:
        self.since = 0
        self.rounds += 1
        if self.rounds < self.block_steps:
            return "block"
        self.rounds = 0
        return "all"
