"""Guessing, in paper A's tables: a loss of 0.98 ln C or more, or the accuracy of guessing."""

import math

import pytest

from hpcddl.run.divergence import Heldout, at_chance, not_above_chance, settled_at_chance
from hpcddl.run.state import outcome

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


@pytest.mark.parametrize(
    ("results", "word"),
    [
        # A short run that learns: above the accuracy of guessing, and the loss falls.
        ([(1.01 * LN, 0.012)], "done"),
        ([(1.3 * LN, 0.012), (1.1 * LN, 0.02)], "done"),
        ([(0.99 * LN, 0.02), (0.985 * LN, 0.03)], "done"),
        # It was better by less than the margin.
        ([(0.979 * LN, 0.02), (0.981 * LN, 0.03)], "done"),
        ([(0.5 * LN, 0.3)], "done"),
        # Never better than guessing.
        ([(LN, 0.01)], "not above chance"),
        ([(LN, 0.01), (0.999 * LN, 0.0101)], "not above chance"),
        ([(LN, 0.0109), (0.999 * LN, 0.0109)], "not above chance"),  # of 100,000 guesses some luck
        ([(3 * LN, 0.02)], "not above chance"),
        ([(2 * LN, 0.02), (5 * LN, 0.02)], "not above chance"),
        # Better, and then guessing.
        ([(0.5 * LN, 0.3), (LN, 0.01)], "diverged"),
        ([(0.5 * LN, 0.3), (0.995 * LN, 0.05)], "diverged"),
        ([(0.5 * LN, 0.3), (0.5 * LN, 0.01)], "diverged"),
    ],
)
def test_the_word_for_a_run_of_finite_losses(results: list[tuple[float, float]], word: str) -> None:
    history = [Heldout(i, *pair) for i, pair in enumerate(results, 1)]
    since = settled_at_chance(history, 100)
    assert (
        outcome(
            {
                "diverged": since is not None,
                "not_above_chance": since is None and not_above_chance(history, 100, 0.01, 100_000),
            }
        )
        == word
    )


def test_earlier_versions_summaries_keep_their_word() -> None:
    assert outcome({"diverged": True, "diverged_since": {"epoch": 1}}) == "diverged"
    assert outcome({"diverged": False, "diverged_since": None}) == "done"


def test_the_most_frequent_class_is_a_guess_too() -> None:
    """Of two classes, one of 97 %: an accuracy of 97 % says nothing."""
    history = [Heldout(1, math.log(2), 0.97)]
    assert not_above_chance(history, 2, prior_accuracy=0.97, predictions=10_000)
    assert not not_above_chance(history, 2, prior_accuracy=0.5, predictions=10_000)
