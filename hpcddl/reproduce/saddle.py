"""`hpcddl reproduce saddle`: who leaves a saddle point, and when (paper A sec. 2.1, app. E)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from math import inf, sqrt
from pathlib import Path

import numpy as np

from hpcddl.cluster.world import World
from hpcddl.common.bounds import check_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.communication.topology import TOPOLOGIES
from hpcddl.reproduce.prepare import make_folder
from hpcddl.reproduce.saddle_learners import RULES, consensus_paths, leaving_times
from hpcddl.reproduce.saddle_plot import draw
from hpcddl.reproduce.saddle_problem import Saddle, Setting, kicks, spread
from hpcddl.reproduce.saddle_report import Case, Study, statements, table, write

_FIXED = ("random_pair", "full", "ring")  # symmetric, so that their spread is known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce saddle`."""
    parser.description = (
        "Times at which SSGD, SSGD* and DPSGD leave the saddle of a small synthetic loss, from the "
        "same starts with the same samples, by global batch; and a loss on which they are equal. "
        "Ranks share the seeds."
    )
    parser.epilog = "example: hpcddl reproduce saddle --seeds 200 --out runs/saddle"
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/saddle"), help="folder of tables and picture")
    add("--seeds", type=int, default=200, help="of starts, samples and pairs")
    add("--learners", type=int, default=16, metavar="n")
    add("--batches", type=int, nargs="+", default=[16, 8, 4, 2], metavar="B", help="local batches")
    add("--samples", type=int, default=256, metavar="N", help="of the data set; a multiple of 4")
    add("--rate", type=float, default=0.5, help="alpha, below 1: the saddle is steep by a = 1")
    add("--topology", choices=_FIXED, default="random_pair", help="of DPSGD")
    add("--start", type=float, default=1e-6, help="standard deviation of x and y at the start")
    add("--left", type=float, default=0.5, help="|y| at which it is left; the minima are at 1")
    add("--updates", type=int, default=1000, help="after which it is not waited for any longer")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the study is written, whatever came out."""
    world = World.create()
    with world.failing_together():
        world.together(lambda: _check(arguments))
        world.together(lambda: make_folder(arguments.out))
        study = _study(arguments, world)
        if world.rank == 0:
            write(study, arguments.out)
            draw(study, arguments.out)
            print(table(study))
            for statement in statements(study):
                print(f"\n{statement}")
            print(f"\n{arguments.out}: table.csv, times.csv, results.json, saddle.png, saddle.pdf")
    return 0


def _study(arguments: argparse.Namespace, world: World) -> Study:
    steep = Saddle(samples=arguments.samples)
    # One Hessian for all samples, everywhere; noise that is the same wherever a learner is.
    common = replace(steep, c=0.0, kappa=0.0, tau=0.01)
    base = Setting(
        learners=arguments.learners,
        local_batch=max(arguments.batches),
        rate=arguments.rate,
        start=arguments.start,
        left=arguments.left,
        updates=arguments.updates,
    )
    cases = []
    for batch in sorted(arguments.batches, reverse=True):
        setting = replace(base, local_batch=batch)
        cases += [_case(steep, setting, name, arguments.topology) for name in RULES]
    least = replace(base, local_batch=min(arguments.batches))
    cases += [_case(common, least, name, arguments.topology) for name in ("SSGD", "DPSGD")]
    mine = range(world.rank, arguments.seeds, world.size)
    timed = []
    what = f"saddle on {world.size} ranks, rank 0"
    with Progress(len(cases), what, "cases", shown=world.rank == 0) as progress:
        for case in cases:
            own = leaving_times(case.paths(mine), case.setting) if mine else np.empty(0)
            times = np.empty(arguments.seeds)
            for rank, part in enumerate(world.comm.allgather(own)):
                times[rank :: world.size] = part
            timed.append(replace(case, times=times))
            progress.add()
    return Study(timed, arguments.topology, arguments.seeds)


def _case(saddle: Saddle, setting: Setting, algorithm: str, topology: str) -> Case:
    made = partial(TOPOLOGIES[topology], setting.learners)
    between = spread(saddle, setting, made(0))
    # Per weight as far from the consensus as DPSGD's learners are.
    std = sqrt(between / 2)
    paths = partial(consensus_paths, saddle, setting, algorithm, made, std)
    full = setting.learners * setting.local_batch == saddle.samples
    kick = None
    if full and algorithm != "SSGD*":
        kick = kicks(saddle, setting, made(0)) if algorithm == "DPSGD" else 0.0
    return Case(saddle, setting, algorithm, std if algorithm == "SSGD*" else 0.0, kick, paths)


def _check(arguments: argparse.Namespace) -> None:
    check_least(arguments, {"seeds": 1, "learners": 4, "samples": 4, "updates": 1})
    if arguments.samples % 4:
        raise UserError(f"--samples: {arguments.samples}, allowed: multiples of 4")
    for batch in arguments.batches:
        if not 1 <= batch <= arguments.samples // arguments.learners:
            raise UserError(
                f"--batches: {batch}, allowed: 1 to {arguments.samples // arguments.learners}, for "
                f"{arguments.learners} learners and {arguments.samples} samples"
            )
    for name, high in {"rate": 1.0, "start": inf, "left": 1.0}.items():
        if not 0 < getattr(arguments, name) < high:
            raise UserError(
                f"--{name}: {getattr(arguments, name):g}, allowed: above 0, below {high:g}"
            )
    if arguments.start >= arguments.left:
        raise UserError(f"--start: {arguments.start:g}, allowed: below --left")
