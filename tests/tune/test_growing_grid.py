"""The growing grid finds the best index of a valley, between neighbours, and ends where it must."""

from math import inf

from hypothesis import given
from hypothesis import strategies as some

from hpcddl.tune.growing_grid import grow

indices = some.integers(-40, 40)


@given(optimum=indices, margin=some.integers(1, 3))
def test_the_best_lies_inside_and_nothing_is_tried_twice(optimum: int, margin: int) -> None:
    asked: list[int] = []

    def cost_of(index: int) -> float:
        asked.append(index)
        return abs(index - optimum)

    costs = grow(cost_of, (0, -1, 1), margin=margin)
    assert asked == list(costs)
    assert sorted(asked) == list(range(min(asked), max(asked) + 1))
    assert min(costs, key=lambda index: costs[index]) == optimum
    assert min(asked) <= optimum - margin
    assert max(asked) >= optimum + margin
    if margin == 1:  # nothing but the way there
        assert min(asked) == min(-1, optimum - 1)
        assert max(asked) == max(1, optimum + 1)


@given(optimum=indices, trials=some.integers(1, 20))
def test_there_are_at_most_so_many_trials(optimum: int, trials: int) -> None:
    assert len(grow(lambda index: abs(index - optimum), (0, -1, 1), trials=trials)) <= trials


@given(optimum=indices, low=some.integers(-20, 0), high=some.integers(0, 20))
def test_the_grid_ends_where_values_are_not_allowed(optimum: int, low: int, high: int) -> None:
    costs = grow(
        lambda index: abs(index - optimum), (0, -1, 1), allowed=lambda index: low <= index <= high
    )
    assert min(costs, key=lambda index: costs[index]) == min(max(optimum, low), high)


def test_of_two_as_good_the_smaller_has_neighbours() -> None:
    """A plateau from -3 to 0: its lowest index is the best."""
    costs = grow(lambda index: max(0, index, -3 - index), (0, -1, 1))
    assert min(costs) == -4


def test_while_all_are_infinite_it_grows_to_where_it_gives_up() -> None:
    costs = grow(lambda index: inf, (0, -1, 1), give_up=(-4, 1))
    assert sorted(costs) == [-4, -3, -2, -1, 0, 1]
    costs = grow(lambda index: -index if index <= -3 else inf, (0, -1, 1), give_up=(-inf, 1))
    assert min(costs, key=lambda index: costs[index]) == -3
