"""When a run has diverged, or is not above chance: results, not crashes (paper A tables 3 and 4).

A run has diverged when its numbers are not finite, or when it was better than guessing and has come
to stay at guessing. One that never was better than guessing is not above chance: it may have
learned too little yet, or not at all.
"""

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
    return guesses(result, classes)


def guesses(result: Heldout, classes: int) -> bool:
    """Whether the accuracy alone is that of guessing."""
    return result.accuracy <= 1.02 / classes


def settled_at_chance(results: Sequence[Heldout], classes: int) -> dict[str, Any] | None:
    """Finds since which epoch a run that was better has stayed at chance until its end.

    None of one that has not, or never was better.
    """
    stay = [at_chance(result, classes) for result in results]
    if not stay or not stay[-1] or all(stay):
        return None
    first = results[len(stay) - stay[::-1].index(False)]
    last, best = results[-1], min(r.loss for r in results if r.loss is not None)
    margin = (1 - CHANCE) * math.log(classes)
    if last.loss is not None and last.loss <= best + margin and not guesses(last, classes):
        return None  # about as good as ever: that was hardly better than guessing
    shown = "not finite" if first.loss is None else f"{first.loss:.4f}"
    return {
        "epoch": first.epoch,
        "reason": f"held-out loss {shown}, at chance from there on (ln {classes} = "
        f"{math.log(classes):.4f})",
    }


def not_above_chance(
    results: Sequence[Heldout], classes: int, prior_accuracy: float, predictions: int
) -> bool:
    """Whether no held-out result was better than guessing, and the last shows no progress either.

    Progress is an accuracy clearly above that of guessing with a loss that has fallen, or of a
    single evaluation is about ln C. Clearly is by more than three standard deviations of guesses.

    Args:
        prior_accuracy: of always answering with the most frequent class.
        predictions: that an accuracy is the mean of.
    """
    if not results or not all(at_chance(result, classes) for result in results):
        return False
    first, last = results[0], results[-1]
    guessing = max(1 / classes, prior_accuracy)
    clearly = guessing + 3 * math.sqrt(guessing * (1 - guessing) / predictions)
    if last.loss is None or first.loss is None or last.accuracy <= clearly:
        return True
    before = first.loss if len(results) > 1 else (2 - CHANCE) * math.log(classes)
    return last.loss >= before
