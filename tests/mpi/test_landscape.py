"""Points shared out over the ranks: the same numbers on any number of them."""

from pathlib import Path

import numpy as np
import pytest

from hpcddl.analysis.points import values_at
from hpcddl.analysis.surface import SurfacePlan, survey
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from tests.analysis.known_loss import Quadratic, of_class_zero, run_folder, trained_of


@pytest.mark.ranks(1, 2, 3, 4)
def test_every_point_is_computed_once_by_its_rank(world: World, tmp_path: Path) -> None:
    """Dealt out in turns; all ranks have all of them; nothing is computed a second time."""
    mine: list[int] = []

    def value(number: int) -> tuple[float, ...]:
        mine.append(number)
        return number / 7, number**2

    expected = [(number / 7, number**2) for number in range(11)]
    for _ in range(2):
        found = values_at(11, value, 2, tmp_path / "kept", {"seed": 1}, world, "points")
        np.testing.assert_array_equal(found, expected)
    assert mine == list(range(world.rank, 11, world.size))


@pytest.mark.ranks(1, 2, 3, 4)
def test_what_was_finished_on_other_ranks_is_taken_over(world: World, tmp_path: Path) -> None:
    """Points kept in any order, as a killed job leaves them."""
    kept = tmp_path / "kept"
    if world.rank == 0:
        kept.write_text('# {"seed": 1}\n4 0.5\n1 0.25\n3 0.12')
    world.comm.Barrier()

    def value(number: int) -> tuple[float, ...]:
        assert number not in (1, 4)
        return (float(number),)

    found = values_at(6, value, 1, kept, {"seed": 1}, world, "points")
    np.testing.assert_array_equal(found[:, 0], [0, 0.25, 2, 3, 0.5, 5])
    with pytest.raises(UserError, match="made with seed=1, not 2"):
        values_at(6, value, 1, kept, {"seed": 2}, world, "points")


@pytest.mark.ranks(1, 2, 3, 4)
def test_a_landscape_is_the_same_on_any_number_of_ranks(world: World, tmp_path: Path) -> None:
    """Bit for bit what one rank computes by itself."""
    plan = SurfacePlan(
        points=4,
        scale=0.5,
        directions=0,
        normalise="filter",
        of="train",
        samples=5,
        batch=2,
        batch_norm="eval",
        seed=2,
    )
    run = tmp_path / "run"
    if world.rank == 0:
        run_folder(tmp_path)
    world.comm.Barrier()
    alone = World(world.comm.Split(world.rank), world.node, world.device)
    landscapes = [
        survey("run", run, trained_of(Quadratic(), of_class_zero(), w), plan, tmp_path / name)
        for w, name in ((world, "all"), (alone, f"alone-{world.rank}"))
    ]
    np.testing.assert_array_equal(landscapes[0].loss, landscapes[1].loss)
    assert landscapes[0].centre == landscapes[1].centre
