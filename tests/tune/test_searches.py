"""The points that each search asks for."""

from itertools import product

import pytest

from hpcddl.common.errors import UserError
from hpcddl.run.config import load_config
from hpcddl.tune.noise_search import TRIALS
from hpcddl.tune.searches import (
    Point,
    Search,
    factor_grid,
    gradient_noise_grid,
    noise_search,
    rate_grid,
    start_of,
    words_of,
)

CONFIG = load_config("mini.dpsgd")


def asked(search: Search, cost_of=lambda point: 1.0) -> list[Point]:
    points: list[Point] = []

    def note(point: Point) -> float:
        points.append(point)
        return cost_of(point)

    search.run(note)
    return points


def anything(point: Point) -> bool:
    return True


def test_the_rate_grid_begins_with_the_papers_factors() -> None:
    """15, 15.5, 16, 16.5, 17 times 0.1, and no more while 16 is the best."""
    points = asked(rate_grid(1.6, anything, 99), lambda point: abs(point["schedule.rate"] - 1.6))
    assert sorted(point["schedule.rate"] for point in points) == [1.5, 1.55, 1.6, 1.65, 1.7]


def test_the_rate_grid_reaches_the_square_root_scaling() -> None:
    """As the paper says: from 16 down to 4 times the rate of the single learner."""
    points = asked(rate_grid(1.6, anything, 99), lambda point: abs(point["schedule.rate"] - 0.4))
    rates = sorted(point["schedule.rate"] for point in points)
    assert rates[:3] == [0.35, 0.4, 0.45]
    assert len(rates) == 5 + 23


def test_a_whole_number_stays_whole_and_ends_where_halves_begin() -> None:
    def whole(point: Point) -> bool:
        return isinstance(point["strategy.steps"], int)

    search = factor_grid("strategy.steps", 8, 2.0, whole, 99)
    steps = [point["strategy.steps"] for point in asked(search, lambda p: p["strategy.steps"])]
    assert steps == [8, 4, 16, 2, 1]


def test_while_all_diverge_only_lower_values_are_tried() -> None:
    points = asked(factor_grid("x.y", 1.0, 10.0, anything, 6), lambda point: float("inf"))
    assert [point["x.y"] for point in points] == [1, 0.1, 10, 0.01, 0.001, 0.0001]


def test_the_isotropic_noise_has_the_papers_grid() -> None:
    points = asked(gradient_noise_grid())
    assert [tuple(point.values()) for point in points] == list(
        product((1e-6, 5e-6, 1e-5, 5e-5), (0.5, 1, 1.5, 2, 2.5, 3))
    )
    for point in points:
        noise = load_config("mini.ssgd", words_of(point)).gradient_noise
        assert (noise.eta, noise.gamma) == tuple(point.values())


def test_the_noise_search_tries_about_twenty() -> None:
    points = asked(noise_search())
    assert len({point["weight_noise.std"] for point in points}) == len(points) == TRIALS == 17
    for point in points:
        noise = load_config("mini.ssgd", words_of(point)).weight_noise
        assert noise.std == point["weight_noise.std"]


def test_a_search_begins_at_the_recipes_value() -> None:
    assert start_of(CONFIG, "optimizer.momentum") == CONFIG.optimizer.options["momentum"]
    assert isinstance(start_of(CONFIG, "global_batch"), int)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("schedule.rat", "nearest: 'rate'"),
        ("rat", "must be rate, noise, gradient-noise or a key of the recipe"),
        ("global_batch.x", "is no section"),
        ("weight_noise.std", "it is 0.0 in the recipe, must be a positive number"),
        ("strategy.name", "it is 'dpsgd' in the recipe"),
        ("strategy.delayed", "it is False in the recipe"),
        ("seed", "must be another key"),
    ],
)
def test_other_keys_are_one_line(key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        start_of(CONFIG, key)
