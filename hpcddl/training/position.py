"""Where training stands: which moment a checkpoint holds, and where to continue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where training stands: `step` steps of `epoch` are done (`steps` updates in all).

    An epoch ends in the data order in which it began, that of `learners` learners.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    learners: int = 0


BEGINNING = Position()
