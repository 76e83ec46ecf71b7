"""The grid of rates grows until the best lies inside it."""

from math import inf

import pytest

from hpcddl.tune.rate_search import RateTrial, search


def valley(optimum: float, least: float = 100.0):
    """Iterations: least * max(optimum / rate, rate / optimum), a few more for later seeds."""

    def iterations(rate: float, seed: int, limit: float) -> float:
        needed = least * max(optimum / rate, rate / optimum) + seed
        return needed if needed <= limit else inf

    return iterations


@pytest.mark.parametrize("optimum", [2**-4, 4, 8, 16, 2**9.5])
def test_the_best_rate_is_found_wherever_it_lies(optimum: float) -> None:
    """With two rates tried beyond it on either side."""
    trials = search(valley(optimum), seeds=3, limit=1e9)
    assert trials[0].rate == pytest.approx(optimum)
    assert trials[0].iterations == pytest.approx((100, 101, 102))
    rates = [trial.rate for trial in trials]
    assert min(rates) <= optimum / 1.99
    assert max(rates) >= optimum * 1.99


def test_limits_never_change_the_winner() -> None:
    """The limit is twice the best median so far: whatever is cut short costs more."""
    trials = search(valley(11.0), seeds=4, limit=1e9)
    assert any(trial.limit < 1e9 for trial in trials)
    for trial in trials:
        whole = RateTrial(
            trial.rate, tuple(valley(11.0)(trial.rate, s, inf) for s in range(4)), inf
        )
        assert trial.median in (whole.median, inf)
        assert whole.median >= trials[0].median


def test_a_target_out_of_reach_is_given_up() -> None:
    trials = search(lambda rate, seed, limit: inf, seeds=2, limit=10)
    assert all(trial.median == inf for trial in trials)
    assert len({trial.rate for trial in trials}) == 5 + 2 * 12


def test_no_rate_above_the_highest_is_tried() -> None:
    """The best is then the highest, with two rates below it."""
    for highest in (4.0, 9.0, 32.0):
        trials = search(valley(500.0), seeds=1, limit=1e9, highest=highest)
        rates = sorted(trial.rate for trial in trials)
        assert trials[0].rate == rates[-1] <= highest < rates[-1] * 1.42
        assert len(rates) >= 3
