"""`hpcddl analyze landscape`: how sharp the minima are that runs have found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from hpcddl.analysis.directions import NORMALISE
from hpcddl.analysis.landscape_plot import draw
from hpcddl.analysis.landscape_report import table, write
from hpcddl.analysis.surface import SurfacePlan, survey
from hpcddl.cluster.world import World
from hpcddl.common.bounds import above, at_least
from hpcddl.common.errors import UserError
from hpcddl.run.trained import load_trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl analyze landscape`."""
    parser.description = (
        "Compute the loss around each run's consensus (the mean of its learners' weights), along "
        "the same random directions for all runs: contours on a K x K grid (paper A fig. 3), or "
        "profiles along lines (--directions; paper B fig. 13). The ranks share the points; "
        "finished points are kept, and after an interruption the same command continues."
    )
    parser.epilog = "example: mpirun -np 4 hpcddl analyze landscape runs/ssgd runs/dpsgd"
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    add("--epoch", type=int, help="the checkpoint after so many epochs; default: the newest")
    add("--data", metavar="PATH", help="the data set, if it has moved since training")
    add("--points", type=at_least(2), default=50, metavar="K", help="points along each direction")
    add("--scale", type=above(0), default=0.1, help="distance along each direction, both ways")
    add(
        "--directions",
        type=at_least(0),
        default=0,
        metavar="N",
        help="draw N profiles instead of contours",
    )
    add(
        "--normalise",
        choices=NORMALISE,
        default="filter",
        help="length of a random direction. filter: each filter has the length of the network's "
        "own (Li et al. 2018), biases and normalisation layers stay as they are; none: N(0, 1) "
        "for every weight",
    )
    add("--of", choices=("heldout", "train"), default="heldout", help="data set of the loss")
    add(
        "--samples",
        type=at_least(1),
        default=2048,
        metavar="N",
        help="use at most N of its samples",
    )
    add("--batch", type=at_least(1), help="samples at once; default: the run's local batch")
    add(
        "--batch-norm",
        choices=("eval", "train"),
        default="eval",
        help="statistics for batch norm. eval: those of the consensus, at every point; train: "
        "those of each batch",
    )
    add("--seed", type=at_least(0), default=0, help="seed of directions and samples")
    add(
        "--spacing",
        type=above(0),
        help="loss between contours (paper A: 0.005); default: about 12 lines",
    )
    add("--log", action="store_true", help="draw log10 of the loss (paper A fig. 2b)")
    add(
        "--out",
        type=Path,
        help="folder; default: RUN/analysis/landscape; for several runs: landscape",
    )
    add("--overwrite", action="store_true", help="start again, without the kept points")


def run(arguments: argparse.Namespace) -> int:
    """Computes the landscapes; rank 0 writes and prints the results."""
    world = World.create()
    with world.failing_together():
        return _run(arguments, world)


def _run(arguments: argparse.Namespace, world: World) -> int:
    names = world.together(lambda: distinct_names(arguments.runs))
    out = arguments.out or _default_folder(arguments.runs)
    plan = SurfacePlan(
        **{name: getattr(arguments, name) for name in SurfacePlan.__dataclass_fields__}
    )
    found = []
    for folder, name in zip(arguments.runs, names, strict=True):
        kept = out / f"{name}.points"
        trained = load_trained(folder, world, arguments.epoch, arguments.data)
        if arguments.overwrite and world.rank == 0:
            kept.unlink(missing_ok=True)
        found.append(survey(name, folder, trained, plan, kept))
    if world.rank == 0:
        write(found, plan, out)
        draw(found, plan, out, arguments.spacing, arguments.log)
        print(table(found, plan))
        numbers = ", ".join(f"{name}.csv" for name in names)
        print(f"{out}: landscape.png, landscape.pdf, landscape.json, {numbers}")
    return 0


def distinct_names(runs: Sequence[Path]) -> list[str]:
    """Names the runs by their folders, with parent folders where two names are the same.

    Raises:
        UserError: a run is given twice.
    """
    folders = [run.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"run {run}: given twice")
    if len({folder.name for folder in folders}) == len(folders):
        return [folder.name for folder in folders]
    common = os.path.commonpath([folder.parent for folder in folders])
    return ["-".join(folder.relative_to(common).parts) for folder in folders]


def _default_folder(runs: Sequence[Path]) -> Path:
    return runs[0] / "analysis" / "landscape" if len(runs) == 1 else runs[0].parent / "landscape"
