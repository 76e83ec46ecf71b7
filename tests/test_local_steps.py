"""Local-step warm-up: from 1 to the target, never down, never beyond."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpcddl.strategies.local_steps import local_steps


@given(
    st.integers(1, 100),
    st.sampled_from(["none", "linear", "exponential", "constant"]),
    st.floats(0.1, 50),
)
def test_grows_from_one_to_the_target(target: int, warmup: Any, epochs: float) -> None:
    steps = local_steps(target, warmup, epochs)
    values = [*(steps(epochs * part / 40) for part in range(40)), steps(epochs)]
    assert values == sorted(values)
    assert values[0] == (target if warmup == "none" else 1)
    assert values[-1] == steps(2 * epochs) == target


def test_kinds_of_warmup() -> None:
    """To 16 over 8 epochs (paper B app. B.4)."""
    at = range(0, 10, 2)
    assert [local_steps(16, "linear", 8)(e) for e in at] == [1, 4, 8, 12, 16]
    assert [local_steps(16, "exponential", 8)(e) for e in at] == [1, 2, 4, 8, 16]
    assert [local_steps(16, "constant", 8)(e) for e in at] == [1, 1, 1, 1, 16]
