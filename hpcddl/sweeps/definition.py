"""Sweeps: families of runs, one YAML file each, expanded to commands of `hpcddl train`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from re import ASCII, fullmatch
from typing import Any

import yaml
from pydantic import Field, PositiveInt, ValidationError

from hpcddl.common.errors import UserError
from hpcddl.common.options import Strict
from hpcddl.common.yaml_file import read_yaml_file, shown
from hpcddl.recipes import is_file
from hpcddl.run.config import load_config
from hpcddl.run.faults import first_fault
from hpcddl.run.overrides import word_of

FOLDER = Path(__file__).parent
MOST_RUNS = 10_000


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
    if not is_file(path):
        raise UserError(
            f"sweep {shown(repr(name))}: must be a YAML file or one of {', '.join(names())}"
        )
    values = read_yaml_file(path, "sweep")
    try:
        return Sweep.model_validate(values)
    except ValidationError as error:
        raise UserError(f"sweep {shown(path)}: {first_fault(error)}") from None


def expand(sweep: Sweep, overrides: tuple[str, ...] = ()) -> list[SweepRun]:
    """Every combination of the axes, the last varying fastest, each checked as its run will be.

    `overrides` are those of all runs; they come first, so that an axis keeps its meaning.

    Raises:
        UserError: an axis of neither form, two runs of one name, overrides that the recipe refuses,
            learners that cannot share the global batch.
    """
    axes = [_points(axis) for axis in sweep.axes]
    count = prod(map(len, axes))
    if count > MOST_RUNS:
        raise UserError(f"sweep: axes: must give at most {MOST_RUNS:,} runs, not {count:,}")
    runs = [_run(combination, overrides) for combination in product(*axes)]
    taken = Counter(run.name for run in runs)
    for run in runs:
        if not _names_a_folder(run.name):
            raise UserError(
                f"sweep: {shown(repr(run.name))} is to be a folder's name; give its value a label"
            )
        if taken[run.name] > 1:
            raise UserError(f"sweep: two runs are called {run.name}; give their values labels")
        config = load_config(sweep.recipe, run.overrides)
        _check_learners(run, config.global_batch)
    return runs


def _run(combination: tuple[tuple[str, dict[str, Any]], ...], above: tuple[str, ...]) -> SweepRun:
    """The run at points of every axis; the overrides `above` come first."""
    values = [(key, value) for _, point in combination for key, value in point.items()]
    words = [word_of(key, value) for key, value in values if key != "learners"]
    learners = next((value for key, value in values if key == "learners"), None)
    if isinstance(learners, str) and fullmatch("[0-9]{1,18}", learners):
        learners = int(learners)
    return SweepRun("_".join(label for label, _ in combination), (*above, *words), learners)


def _names_a_folder(name: str) -> bool:
    """Whether a run may be called so: a name and no path, short, on one line."""
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and name.isprintable()
        and len(name.encode(errors="surrogateescape")) < 256
    )


def _check_learners(run: SweepRun, global_batch: int) -> None:
    n = run.learners
    if n is not None and (type(n) is not int or n < 1 or global_batch % n):
        raise UserError(
            f"sweep: {run.name}: learners={shown(n)}: must be a whole number that divides "
            f"global_batch={global_batch}"
        )


def _points(axis: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The labels and keys of an axis' points."""
    if not axis:
        raise UserError(
            "sweep: axes: {}: must be {key: [value, ...]} or {label: {key: value, ...}}"
        )
    if len(axis) == 1:
        ((key, values),) = axis.items()
        if isinstance(values, list) and values:
            short = key.rpartition(".")[2]
            return [(f"{short}={_label(value)}", {key: value}) for value in values]
    for label, point in axis.items():
        if not isinstance(point, dict) or not point:
            raise UserError(
                f"sweep: axes: {shown(label)}: must be {{key: value, ...}}, or all the axis "
                "{key: [...]}"
            )
    return list(axis.items())


def _label(value: Any) -> str:
    """Writes a value of an axis as names of runs always have: 1.0e-3 as 0.001, true as True."""
    return str(_guess(value))


def _guess(value: Any) -> Any:
    """What YAML takes a text for; only names of runs depend on it, and it changes no number."""
    if isinstance(value, list):
        return [_guess(one) for one in value]
    if isinstance(value, dict):
        return {key: _guess(one) for key, one in value.items()}
    if not isinstance(value, str) or not fullmatch(r"[-+.\w]{1,99}", value, ASCII):
        return value
    try:
        guess = yaml.safe_load(value)
        keeps = isinstance(guess, bool) or (
            isinstance(guess, int | float) and float(value) == guess
        )
    except ValueError:  # no date, or no number but for YAML
        return value
    return guess if keeps else value
