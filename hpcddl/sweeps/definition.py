"""Sweeps: families of runs, one YAML file each, expanded to commands of `hpcddl train`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, ValidationError

from hpcddl.common.errors import UserError
from hpcddl.common.options import Strict
from hpcddl.run.config import load_config

FOLDER = Path(__file__).parent


class Sweep(Strict):
    """A recipe and the axes that its runs vary along: every combination is a run.

    An axis is `key: [value, ...]`, or `{label: {key: value, ...}, ...}` where several keys go
    together or a value deserves a shorter name. The key `learners` is no key of the recipe but the
    ranks that a run needs, in place of the sweep's.
    """

    description: str
    recipe: str
    learners: PositiveInt  # ranks of each run, unless a launcher or an axis has others
    axes: list[dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class SweepRun:
    """One of a sweep's runs: its name, which is its folder's, and its recipe's overrides.

    `learners` are the ranks that an axis has it run on, None where none does.
    """

    name: str
    overrides: tuple[str, ...]
    learners: int | None = None


def names() -> list[str]:
    """The packaged sweeps."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_sweep(name: str) -> Sweep:
    """A packaged sweep, or a YAML file.

    Raises:
        UserError: neither exists, not YAML, an unknown or missing key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"sweep {name!r}: must be a YAML file or one of {', '.join(names())}")
    try:
        return Sweep.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"sweep {path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        raise UserError(f"sweep {path}: {where + ': ' if where else ''}{message}") from None


def expand(sweep: Sweep, overrides: tuple[str, ...] = ()) -> list[SweepRun]:
    """Every combination of the axes, the last varying fastest, each checked as its run will be.

    `overrides` are those of all runs; they come first, so that an axis keeps its meaning.

    Raises:
        UserError: an axis of neither form, two runs of one name, overrides that the recipe refuses,
            learners that cannot share the global batch.
    """
    runs = []
    for combination in product(*map(_points, sweep.axes)):
        labels, points = zip(*combination, strict=True)
        values = [(key, value) for point in points for key, value in point.items()]
        words = [f"{key}={json.dumps(value)}" for key, value in values if key != "learners"]
        learners = next((value for key, value in values if key == "learners"), None)
        runs.append(SweepRun("_".join(labels), (*overrides, *words), learners))
    taken = [run.name for run in runs]
    for run in runs:
        if taken.count(run.name) > 1:
            raise UserError(f"sweep: two runs are called {run.name}; give their values labels")
        if "/" in run.name:
            raise UserError(f"sweep: {run.name!r} is to be a folder's name; give its value a label")
        config = load_config(sweep.recipe, run.overrides)
        _check_learners(run, config.global_batch)
    return runs


def _check_learners(run: SweepRun, global_batch: int) -> None:
    n = run.learners
    if n is not None and (type(n) is not int or n < 1 or global_batch % n):
        raise UserError(
            f"sweep: {run.name}: learners={n}: must be a whole number that divides "
            f"global_batch={global_batch}"
        )


def _points(axis: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The labels and keys of an axis' points."""
    (key, values), *others = axis.items()
    if isinstance(values, list) and values and not others:
        return [(f"{key.rpartition('.')[2]}={value}", {key: value}) for value in values]
    for label, point in axis.items():
        if not isinstance(point, dict) or not point:
            raise UserError(
                f"sweep: axes: {label}: must be {{key: value, ...}}, or all the axis {{key: [...]}}"
            )
    return [(str(label), point) for label, point in axis.items()]
