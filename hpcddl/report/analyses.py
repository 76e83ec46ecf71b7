"""Reads the results that `hpcddl analyze` has stored beside runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcddl.analysis.line import Line, Losses
from hpcddl.analysis.spectral_density import Quadrature
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan
from hpcddl.analysis.surface import Landscape, SurfacePlan
from hpcddl.common.errors import UserError
from hpcddl.run.records import Run

Found = TypeVar("Found")
Plan = TypeVar("Plan")


def landscapes(runs: Sequence[Run]) -> dict[SurfacePlan, list[Landscape]]:
    """Landscapes of the runs, grouped by the settings of the analysis, in the runs' order."""
    return _by_plan(runs, "landscape", SurfacePlan, _landscape)


def curvatures(runs: Sequence[Run]) -> dict[SpectrumPlan, list[Curvature]]:
    """Curvatures of the runs, grouped by the settings of the analysis, in the runs' order."""
    return _by_plan(runs, "curvature", SpectrumPlan, _curvature)


def lines(runs: Sequence[Run]) -> list[tuple[Line, Losses]]:
    """The line between each run and the run with which it was compared."""
    folders = [run.folder / "analysis" / "interpolate" for run in runs]
    return [
        _read(folder / "interpolate.json", lambda path, said: _line(path.parent, said))
        for folder in folders
        if (folder / "interpolate.json").is_file()
    ]


def _by_plan(
    runs: Sequence[Run],
    what: str,
    plan_type: Callable[..., Plan],
    read: Callable[[Path, Plan, dict[str, Any]], Found],
) -> dict[Plan, list[Found]]:
    """Each run's newest result: its own, or one of several runs beside them."""
    found: dict[Plan, list[Found]] = {}
    for run in runs:
        own = run.folder / "analysis" / what / f"{what}.json"
        joint = run.folder.parent / what / f"{what}.json"
        name = run.folder.resolve().name
        results = [
            (path.stat().st_mtime_ns, path, entry)
            for path in (own, joint)
            if path.is_file()
            for entry in _entries(path)
            if path == own or Path(entry["run"]).name == name
        ]
        if not results:
            continue
        _, path, entry = max(results, key=lambda result: result[0])

        def result(path: Path, said: Any, entry: Any = entry) -> tuple[Plan, Found]:
            fields = plan_type.__dataclass_fields__  # type: ignore[attr-defined]
            plan = plan_type(**{key: said[key] for key in fields})
            return plan, read(path.parent, plan, entry)

        plan, value = _read(path, result)
        found.setdefault(plan, []).append(value)
    return found


def _entries(path: Path) -> list[dict[str, Any]]:
    def entries(_: Path, said: Any) -> list[dict[str, Any]]:
        return [{**entry, "run": entry["run"]} for entry in said["runs"]]

    return _read(path, entries)


def _read(path: Path, take: Callable[[Path, Any], Found]) -> Found:
    """Calls `take` with the file and its JSON.

    Raises:
        UserError: not as the command writes it.
    """
    try:
        return take(path, json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}: not as `hpcddl analyze` writes it: {said}") from None


def _landscape(folder: Path, plan: SurfacePlan, entry: dict[str, Any]) -> Landscape:
    table = _columns(folder / f"{entry['name']}.csv", ("loss", "error"))
    loss, error = (column.reshape(-1, plan.points) for column in table.T)
    centre = (_number(entry["loss"]), entry["error"])
    return Landscape(entry["name"], entry, loss, error, centre)


def _curvature(folder: Path, plan: SpectrumPlan, entry: dict[str, Any]) -> Curvature:
    name, spectrum, grid = entry["name"], [], None
    if plan.probes:
        table = _columns(folder / f"{name}.density.csv", ("probe", "node", "weight"))
        probes = (table[table[:, 0] == k] for k in np.unique(table[:, 0]))
        spectrum = [Quadrature(probe[:, 1], probe[:, 2]) for probe in probes]
    if plan.grid:
        ends = _columns(folder / f"{name}.grid.csv", ("lambda_max", "lambda_min"))
        grid = ends.reshape(plan.grid, plan.grid, 2)
    top = np.array(entry["largest"], dtype=np.float64)
    return Curvature(name, entry, top, entry["least"], spectrum, grid)


def _line(folder: Path, said: dict[str, Any]) -> tuple[Line, Losses]:
    line = Line(**{key: said[key] for key in Line.__dataclass_fields__})
    names = ("train_loss", "train_error", "heldout_loss", "heldout_error")
    return line, Losses(said, *_columns(folder / "interpolate.csv", names).T)


def _columns(path: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """(rows, names) of a CSV file."""
    with open(path, newline="") as file:
        return np.array([[float(row[name]) for name in names] for row in csv.DictReader(file)])


def _number(value: float | None) -> float:
    return np.nan if value is None else value
