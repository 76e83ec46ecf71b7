"""When a run has diverged: a result, not a crash (paper A tables 3 and 4)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

CHANCE = 0.98  # of ln C: what paper A's table 4 shows as 10.37 = ln 32000


class Heldout(NamedTuple):
    """The consensus after `epoch` epochs: loss in nats (None: not finite), accuracy 0 .. 1."""

    epoch: int
    loss: float | None
    accuracy: float


def at_chance(result: Heldout, classes: int) -> bool:
    """Whether a held-out loss or accuracy is that of guessing."""
    if result.loss is None or result.loss >= CHANCE * math.log(classes):
        return True
    return result.accuracy <= 1.02 / classes


def settled_at_chance(results: Sequence[Heldout], classes: int) -> dict[str, Any] | None:
    """Finds since which epoch a run has stayed at chance until its end; None if it has not."""
    first = None
    for result in reversed(results):
        if not at_chance(result, classes):
            break
        first = result
    if first is None:
        return None
    shown = "not finite" if first.loss is None else f"{first.loss:.4f}"
    return {
        "epoch": first.epoch,
        "reason": f"held-out loss {shown}, at chance from there on (ln {classes} = "
        f"{math.log(classes):.4f})",
    }
