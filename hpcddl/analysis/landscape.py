"""`hpcddl analyze landscape`: how sharp the minima are that runs have found."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcddl.analysis.landscape_plot import draw
from hpcddl.analysis.landscape_report import table, write
from hpcddl.analysis.several_runs import (
    add_normalise,
    add_runs,
    add_sample,
    default_folder,
    distinct_names,
)
from hpcddl.analysis.surface import SurfacePlan, survey
from hpcddl.cluster.world import World
from hpcddl.common.bounds import above, at_least
from hpcddl.common.study import StudyFolder
from hpcddl.run.trained import trained_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl analyze landscape`."""
    parser.description = (
        "Compute the loss around each run's consensus (the mean of its learners' weights), along "
        "the same random directions for all runs: contours on a K x K grid (paper A fig. 3), or "
        "profiles along lines (--directions; paper B fig. 13). The ranks share the points; "
        "finished points are kept, and after an interruption the same command continues."
    )
    parser.epilog = "example: mpirun -np 4 hpcddl analyze landscape runs/ssgd runs/dpsgd"
    add_runs(parser)
    add = parser.add_argument
    add("--points", type=at_least(2), default=50, metavar="K", help="points along each direction")
    add("--scale", type=above(0), default=0.1, help="distance along each direction, both ways")
    add(
        "--directions",
        type=at_least(0),
        default=0,
        metavar="N",
        help="draw N profiles instead of contours",
    )
    add_normalise(parser)
    add_sample(parser, of=("heldout", "train"), samples=2048)
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
    world = World.create(vars(arguments))
    with world.failing_together():
        names = world.together(lambda: distinct_names(arguments.runs))
        out = arguments.out or default_folder(arguments.runs, "landscape")
        plan = SurfacePlan(
            **{name: getattr(arguments, name) for name in SurfacePlan.__dataclass_fields__}
        )
        found = []
        for folder, name in zip(arguments.runs, names, strict=True):
            kept = out / f"{name}.points"
            trained = trained_of(arguments, folder, world)
            if arguments.overwrite and world.rank == 0:
                kept.unlink(missing_ok=True)
            found.append(survey(name, folder, trained, plan, kept))
        if world.rank == 0:
            written = StudyFolder(out)
            draw(found, plan, written, arguments.spacing, arguments.log)
            write(found, plan, written)
            print(table(found, plan))
            print(written)
    return 0
