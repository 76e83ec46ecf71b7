"""Divergence in paper A's tables: a loss of 0.98 ln C or more, or the accuracy of guessing."""

import math

import pytest

from hpcddl.run.divergence import Heldout, at_chance, settled_at_chance

LN = math.log(100)


@pytest.mark.parametrize(
    ("loss", "accuracy", "expected"),
    [
        (LN, 0.5, True),
        (0.981 * LN, 0.5, True),
        (0.979 * LN, 0.5, False),
        (None, 0.5, True),
        (1.0, 0.01, True),
        (1.0, 0.011, False),
    ],
)
def test_at_chance(loss: float | None, accuracy: float, expected: bool) -> None:
    assert at_chance(Heldout(1, loss, accuracy), 100) is expected


def test_since_the_first_epoch_of_the_last_stretch() -> None:
    losses = [(LN, 0.01), (2.0, 0.3), (LN, 0.01), (None, 0.0), (LN, 0.01)]
    history = [Heldout(150 + i, *pair) for i, pair in enumerate(losses)]
    since = settled_at_chance(history, 100)
    assert since is not None
    assert since["epoch"] == 152
    assert settled_at_chance(history[:2], 100) is None
