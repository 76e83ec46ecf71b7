"""Where training stands: what a checkpoint is of, and where it goes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where training stands: `step` steps of `epoch` are done (`steps` updates in all).

    An epoch ends in the data order that it began in, that of `learners` learners.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    learners: int = 0


BEGINNING = Position()
