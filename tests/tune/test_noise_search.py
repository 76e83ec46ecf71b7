"""The search of SSGD*'s noise comes close to the best, wherever its window lies."""

import math

import pytest

from hpcddl.tune.noise_search import TRIALS, search_std


@pytest.mark.parametrize("best", [-4.9, -2.3, -1.0, 0.4])
def test_the_search_comes_within_an_eighth_of_a_decade(best: float) -> None:
    """Of the best noise of a window that is a quarter of a decade wide on either side."""
    tried = search_std(lambda std: min(1.0, abs(math.log10(std) - best) / 0.25))
    assert len(tried) == TRIALS
    assert max(tried) == 10
    assert min(tried) <= 1e-5
    assert abs(math.log10(next(iter(tried))) - best) <= 1 / 16 + 1e-3
    assert list(tried.values()) == sorted(tried.values())


def test_of_noises_as_good_the_smallest_is_taken() -> None:
    tried = search_std(lambda std: math.inf if std > 0.05 else 2.0)
    assert next(iter(tried)) == min(tried)
