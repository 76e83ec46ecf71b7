"""Points that are kept: what a killed run finished is not computed again."""

from pathlib import Path

import numpy as np
import pytest

from hpcddl.analysis.points import values_at
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError

POINTS = 6


def value(number: int) -> tuple[float, float]:
    return number / 3, float("inf") if number == 4 else float(number)


def collect(kept: Path, world: World, only: range | None = None, **settings: object) -> np.ndarray:
    """Fails where a point outside `only` is asked for."""

    def asked(number: int) -> tuple[float, float]:
        if only is not None and number not in only:
            raise KeyboardInterrupt(number)
        return value(number)

    return values_at(POINTS, asked, 2, kept, settings, world, "points")


def test_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Also in the middle of a line; the values are the same, bit for bit, infinite ones too."""
    world, kept = World.create(), tmp_path / "new" / "kept"
    with pytest.raises(KeyboardInterrupt):
        collect(kept, world, range(4), seed=1)
    with open(kept, "a") as file:
        file.write("4 1.33")
    found = collect(kept, world, range(4, POINTS), seed=1)
    np.testing.assert_array_equal(found, [value(number) for number in range(POINTS)])
    content = kept.read_bytes()
    np.testing.assert_array_equal(collect(kept, world, range(0), seed=1), found)
    assert kept.read_bytes() == content


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    """And stay as they are."""
    world, kept = World.create(), tmp_path / "kept"
    collect(kept, world, seed=1, scale=0.5)
    before = kept.read_bytes()
    with pytest.raises(UserError, match=r"made with scale=0\.5, not 0\.1; .*--overwrite"):
        collect(kept, world, seed=1, scale=0.1)
    with pytest.raises(UserError, match="made with batch=None, not 2"):
        collect(kept, world, seed=1, scale=0.5, batch=2)
    assert kept.read_bytes() == before
    for garbled in (b"", b"text", b"# {}\n0 1.0\n", b"# [1]\n", b"# {}\n9 1.0 1.0\n", b"\xff\n"):
        kept.write_bytes(garbled)
        with pytest.raises(UserError, match="not what this command writes"):
            collect(kept, world)
        assert kept.read_bytes() == garbled
    with pytest.raises(UserError, match="cannot be used"):
        collect(kept / "below", world)
