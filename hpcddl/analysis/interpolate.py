"""`hpcddl analyze interpolate`: the loss between two minima, and beyond them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import numpy as np

from hpcddl.analysis.interpolate_plot import draw
from hpcddl.analysis.line import Line, Losses, described, interpolate
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder
from hpcddl.common.table import aligned
from hpcddl.run.trained import add_choice_arguments, trained_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl analyze interpolate`."""
    parser.description = (
        "Compute loss and error of (1 - t) w_A + t w_B on the training and the held-out set of run "
        "A; w_A and w_B are the runs' weights (paper B fig. 4b). The ranks share the points; "
        "finished points are kept, and after an interruption the same command continues."
    )
    parser.epilog = "example: mpirun -np 4 hpcddl analyze interpolate runs/ssgd runs/local_sgd"
    add = parser.add_argument
    add("run_a", type=Path, metavar="RUN_A", help="the run at t = 0")
    add("run_b", type=Path, metavar="RUN_B", help="the run at t = 1, of the same network")
    add_choice_arguments(parser)
    add("--from", type=float, default=-1.0, dest="begin", metavar="T", help="the first t")
    add("--to", type=float, default=2.0, dest="end", metavar="T", help="the last t")
    add(
        "--points",
        type=at_least(2),
        default=31,
        metavar="K",
        help="number of values of t, evenly spaced, with both ends",
    )
    add(
        "--samples",
        type=at_least(1),
        default=2048,
        metavar="N",
        help="use at most N samples of each set",
    )
    add("--batch", type=at_least(1), help="samples at once; default: run A's local batch")
    add(
        "--batch-norm",
        choices=("recomputed", "interpolated"),
        default="recomputed",
        help="statistics for batch norm. recomputed: on training batches, at each point; "
        "interpolated: between those of the runs (outside 0 .. 1 variances may fall below 0: no "
        "loss)",
    )
    add(
        "--statistics-batches",
        type=at_least(1),
        default=16,
        metavar="N",
        help="batches to recompute them on",
    )
    add("--seed", type=at_least(0), default=0, help="seed of the samples")
    add("--out", type=Path, help="folder; default: RUN_A/analysis/interpolate")
    add("--overwrite", action="store_true", help="start again, without the kept points")


def run(arguments: argparse.Namespace) -> int:
    """Computes the line; rank 0 writes and prints the results."""
    world = World.create(vars(arguments))
    with world.failing_together():
        world.together(lambda: _check(arguments))
        line = Line(**{name: getattr(arguments, name) for name in Line.__dataclass_fields__})
        runs = arguments.run_a, arguments.run_b
        out = arguments.out or arguments.run_a / "analysis" / "interpolate"
        kept = out / "interpolate.points"
        a, b = (trained_of(arguments, folder, world) for folder in runs)
        if arguments.overwrite and world.rank == 0:
            kept.unlink(missing_ok=True)
        found = interpolate(runs, (a, b), line, kept)
        if world.rank == 0:
            written = StudyFolder(out)
            draw(found, line, written)
            _write(found, line, written)
            print(_table(found, line))
            print(written)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not (isfinite(arguments.begin) and arguments.begin < arguments.end < float("inf")):
        raise UserError(f"--from {arguments.begin:g} --to {arguments.end:g}: must go upwards")


HEAD = ("t", "train_loss", "train_error", "heldout_loss", "heldout_error")


def _columns(found: Losses, line: Line) -> np.ndarray:
    losses = found.train_loss, found.train_error, found.heldout_loss, found.heldout_error
    return np.column_stack([line.at, *losses])


def _table(found: Losses, line: Line) -> str:
    """A row for both ends and the middle; below, what was measured."""
    rows = _columns(found, line)
    chosen = sorted({int(np.abs(line.at - t).argmin()) for t in (line.begin, 0, 0.5, 1, line.end)})
    lines = [[f"{value:.4f}" for value in rows[i]] for i in chosen]
    return "\n".join([*aligned([list(HEAD), *lines], left=0), described(found)])


def _write(found: Losses, line: Line, folder: StudyFolder) -> None:
    folder.write_csv("interpolate.csv", [HEAD, *_columns(found, line).tolist()])
    folder.write_json("interpolate.json", {**asdict(line), **found.facts})
