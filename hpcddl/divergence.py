"""When a run has diverged: a result, not a crash (paper A tables 3 and 4)."""

import math
from collections.abc import Sequence
from typing import Any

CHANCE = 0.98  # of ln C: what paper A's table 4 shows as 10.37 = ln 32000


def at_chance(loss: float | None, accuracy: float, classes: int) -> bool:
    """Whether a held-out loss (nats; None is not finite) or accuracy is that of guessing."""
    return loss is None or loss >= CHANCE * math.log(classes) or accuracy <= 1.02 / classes


def settled_at_chance(
    evaluations: Sequence[tuple[float | None, float]], classes: int
) -> dict[str, Any] | None:
    """The epoch since which every evaluation (loss, accuracy) is at chance, if the last one is."""
    stuck = 0
    for loss, accuracy in reversed(evaluations):
        if not at_chance(loss, accuracy, classes):
            break
        stuck += 1
    if not stuck:
        return None
    first = evaluations[-stuck][0]
    shown = "not finite" if first is None else f"{first:.4f}"
    return {
        "epoch": len(evaluations) - stuck + 1,
        "reason": f"held-out loss {shown} since then at chance (ln {classes} = "
        f"{math.log(classes):.4f})",
    }
