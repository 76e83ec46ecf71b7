"""What is searched: which keys of a recipe, over which values, in the papers' order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

import yaml

from hpcddl.common.errors import UserError
from hpcddl.common.options import nearest
from hpcddl.run.config import Config
from hpcddl.tune.growing_grid import grow
from hpcddl.tune.noise_search import search_std

Point = Mapping[str, float]  # dotted key -> value
CostOf = Callable[[Point], float]
Accepted = Callable[[Point], bool]  # whether the recipe takes it: where not, the grid ends

RATE = "schedule.rate"
STD = "weight_noise.std"
ETA, GAMMA = "gradient_noise.eta", "gradient_noise.gamma"
ETAS = (1e-6, 5e-6, 1e-5, 5e-5)
GAMMAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Search:
    """One of the searches; `run` asks for the cost of one point after the other."""

    description: str
    run: Callable[[CostOf], object]
    most: int | None = None  # points that a growing grid may have


def rate_grid(rate: float, accepted: Accepted, most: int) -> Search:
    """15, 15.5, 16, 16.5 and 17 sixteenths of the recipe's rate, and on in the same steps.

    Paper B app. A.4, where 16 is the linear scaling from batch 128 to 2048.
    """
    return _growing(
        f"{RATE} in steps of 1/32 of {rate:g} (paper B app. A.4)",
        lambda index: {RATE: _rounded(rate * (1 + index / 32))},
        (0, -1, 1, -2, 2),
        accepted,
        most,
    )


def factor_grid(key: str, start: float, factor: float, accepted: Accepted, most: int) -> Search:
    """`start`, one `factor` below and one above it, and on by the factor; whole if `start` is."""

    def point(index: int) -> Point:
        value = start * factor**index
        if isinstance(start, int):
            return {key: int(value) if value.is_integer() else value}
        return {key: _rounded(value)}

    description = f"{key} by factors of {factor:g} from {start:g}"
    return _growing(description, point, (0, -1, 1), accepted, most)


def noise_search() -> Search:
    """SSGD*'s standard deviation from 10 to 1e-5, then finer (paper A sec. 4.3)."""
    return Search(
        f"{STD} from 10 to 1e-5, then finer around the best (paper A sec. 4.3)",
        lambda cost_of: search_std(lambda std: cost_of({STD: std})),
    )


def gradient_noise_grid() -> Search:
    """Every eta with every gamma' that paper B app. C.5 names."""

    def run(cost_of: CostOf) -> None:
        for eta, gamma in product(ETAS, GAMMAS):
            cost_of({ETA: eta, GAMMA: gamma})

    return Search(f"{ETA} x {GAMMA}, the {len(ETAS)} x {len(GAMMAS)} of paper B app. C.5", run)


def words_of(point: Point) -> list[str]:
    """The point as overrides of a recipe."""
    # As YAML writes it: 1e-06 would be read back as a string.
    return [f"{key}={yaml.safe_dump(value).split()[0]}" for key, value in point.items()]


def labels_of(point: Point) -> dict[str, str]:
    """The last part of every key and its value, for folders and tables."""
    return {key.rpartition(".")[2]: f"{value:.12g}" for key, value in point.items()}


def start_of(config: Config, key: str) -> float:
    """The recipe's own value of `key`; whole where the recipe's is.

    Raises:
        UserError: no such key, or not a positive number; `seed`.
    """
    if key == "seed":
        raise UserError("--over seed: must be another key; --seeds says how many seeds there are")
    value: Any = config.plain()
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            hint = nearest(part, value) if isinstance(value, dict) else f"{value!r} is no section"
            raise UserError(
                f"--over {key}: must be rate, noise, gradient-noise or a key of the recipe; {hint}"
            )
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise UserError(
            f"--over {key}: it is {value!r} in the recipe, must be a positive number to begin "
            f"with (give {key}=...)"
        )
    return value


def _growing(
    description: str,
    point: Callable[[int], Point],
    first: Sequence[int],
    accepted: Accepted,
    most: int,
) -> Search:
    def run(cost_of: CostOf) -> None:
        grow(
            lambda index: cost_of(point(index)),
            first,
            allowed=lambda index: accepted(point(index)),
            give_up=(-inf, max(first)),  # while all are lost, no higher ones: they would be too
            trials=most,
        )

    return Search(description, run, most)


def _rounded(value: float) -> float:
    """To six digits, which name a folder."""
    return float(f"{value:.6g}")
