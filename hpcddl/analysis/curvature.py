"""`hpcddl analyze curvature`: how sharp, and how far from convex, the loss is at solutions."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from pathlib import Path

from hpcddl.analysis.curvature_plot import draw_density, draw_grid
from hpcddl.analysis.curvature_report import table, write
from hpcddl.analysis.several_runs import (
    add_normalise,
    add_runs,
    add_sample,
    default_folder,
    distinct_names,
)
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan, survey
from hpcddl.cluster.world import World
from hpcddl.common.bounds import above, at_least
from hpcddl.common.study import StudyFolder
from hpcddl.run.trained import trained_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl analyze curvature`."""
    parser.description = (
        "Compute eigenvalues of the Hessian of the loss at each run's consensus (the mean of its "
        "learners' weights): the largest and the smallest; with --density the distribution of "
        "all (paper B figs. 4a, 14); with --grid |lambda_min| / |lambda_max| around the consensus "
        "(paper A fig. 4). The ranks share the work of each Hessian-vector product. Rank 0 holds "
        "as many vectors as there are --steps, 8 bytes per weight."
    )
    parser.epilog = (
        "example: mpirun -np 4 hpcddl analyze curvature runs/ssgd runs/dpsgd --density --grid 4"
    )
    add_runs(parser)
    add_sample(parser, of=("train", "heldout"), samples=1024)
    add = parser.add_argument
    add("--top", type=at_least(1), default=5, metavar="K", help="number of largest eigenvalues")
    add(
        "--tolerance",
        type=above(0),
        default=1e-3,
        help="limit for residuals, relative to the eigenvalue (for the smallest eigenvalue: to "
        "lambda_max - lambda_min)",
    )
    add("--density", action="store_true", help="density of all eigenvalues, by Lanczos quadrature")
    add("--probes", type=at_least(1), default=10, help="number of random vectors for --density")
    add("--steps", type=at_least(2), default=80, help="Lanczos steps from each of these vectors")
    add("--grid", type=_grid, default=0, metavar="K", help="use K x K points (paper A: 4); 0: none")
    add("--scale", type=above(0), default=0.1, help="extent of the grid, in both directions from 0")
    add_normalise(parser)
    add(
        "--seed", type=at_least(0), default=0, help="seed of samples, directions and random vectors"
    )
    add(
        "--memory",
        type=at_least(0.0),
        default=1.0,
        metavar="GIB",
        help="memory per rank for kept autograd graphs, which save a third or more of each product",
    )
    add(
        "--out",
        type=Path,
        help="folder; default: RUN/analysis/curvature; for several runs: curvature",
    )


def run(arguments: argparse.Namespace) -> int:
    """Computes the curvatures; rank 0 writes and prints the results."""
    world = World.create(vars(arguments))
    with world.failing_together():
        names = world.together(lambda: distinct_names(arguments.runs))
        out = arguments.out or default_folder(arguments.runs, "curvature")
        options = {name: getattr(arguments, name) for name in SpectrumPlan.__dataclass_fields__}
        plan = SpectrumPlan(**{**options, "probes": arguments.probes if arguments.density else 0})
        found: list[Curvature] = []
        written: StudyFolder | None = None
        for folder, name in zip(arguments.runs, names, strict=True):
            trained = trained_of(arguments, folder, world)
            if not found:
                written = world.together(lambda: StudyFolder(out) if world.rank == 0 else None)
            found.append(survey(name, folder, trained, plan))
            if written is not None:
                # After each run: the next one may take hours.
                write(found, plan, written)
        if written is not None:
            if plan.probes:
                draw_density(found, plan, written)
            if plan.grid:
                draw_grid(found, plan, written)
            print(table(found, plan))
            print(written)
    return 0


def _grid(text: str) -> int:
    """None, or enough points for two directions."""
    points = at_least(0)(text)
    if points == 1:
        raise ArgumentTypeError("1: must be 0 or at least 2")
    return points
