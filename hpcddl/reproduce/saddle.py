"""`hpcddl reproduce saddle`: who leaves a saddle point, and when (paper A sec. 2.1, app. E)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path

import numpy as np

from hpcddl.cluster.world import World
from hpcddl.common.bounds import above, at_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.communication.topology import TOPOLOGIES
from hpcddl.reproduce.on_ranks import dealt_out, run_study
from hpcddl.reproduce.saddle_learners import RULES, consensus_paths, leaving_times
from hpcddl.reproduce.saddle_plot import draw
from hpcddl.reproduce.saddle_problem import Array, Saddle, SaddleSetting, kicks, spread
from hpcddl.reproduce.saddle_report import Case, SaddleStudy, report

_FIXED = ("random_pair", "full", "ring")  # symmetric, so that their spread is known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce saddle`."""
    parser.description = (
        "Times at which SSGD, SSGD* and DPSGD leave the saddle of a small synthetic loss, from the "
        "same starts with the same samples, by global batch; and a loss on which they are equal. "
        "Ranks share the seeds."
    )
    parser.epilog = "example: hpcddl reproduce saddle --seeds 200 --out runs/saddle"
    add, count, four = parser.add_argument, at_least(1), at_least(4)
    add("--out", type=Path, default=Path("runs/saddle"), help="folder of tables and picture")
    add("--seeds", type=count, default=200, help="number of seeds (starts, samples, pairs)")
    add("--learners", type=four, default=16, metavar="n")
    batches = [16, 8, 4, 2]
    add("--batches", type=count, nargs="+", default=batches, metavar="B", help="local batches")
    add(
        "--samples",
        type=four,
        default=256,
        metavar="N",
        help="samples in the data set, a multiple of 4",
    )
    steep = "alpha, below 1: the saddle is steep by a = 1"
    add("--rate", type=above(0, 1), default=0.5, help=steep)
    add("--topology", choices=_FIXED, default="random_pair", help="topology of DPSGD")
    add("--start", type=above(0), default=1e-6, help="standard deviation of x and y at the start")
    left = "|y| at which it is left; the minima are at 1"
    add("--left", type=above(0, 1), default=0.5, help=left)
    add("--updates", type=count, default=1000, help="updates after which a run is given up")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the study is written, whatever came out."""
    return run_study(arguments, _cases, _measure, report, draw)


def _cases(arguments: argparse.Namespace, world: World) -> list[Case]:
    """All cases, the largest global batch first, the control last; nobody has left yet."""
    _check(arguments)
    topology = partial(TOPOLOGIES[arguments.topology], arguments.learners)
    steep = Saddle(samples=arguments.samples)
    # One Hessian for all samples, everywhere; noise that is the same wherever a learner is.
    common = replace(steep, c=0.0, kappa=0.0, tau=0.01)
    batches = sorted(arguments.batches, reverse=True)
    trials = [(steep, batch, name) for batch in batches for name in RULES]
    trials += [(common, batches[-1], name) for name in ("SSGD", "DPSGD")]
    cases = []
    for saddle, batch, algorithm in trials:
        setting = SaddleSetting(
            learners=arguments.learners,
            local_batch=batch,
            rate=arguments.rate,
            start=arguments.start,
            left=arguments.left,
            updates=arguments.updates,
        )
        # Per weight as far from the consensus as DPSGD's learners are.
        std = sqrt(spread(saddle, setting, topology(0)) / 2) if algorithm == "SSGD*" else 0.0
        paths = partial(consensus_paths, saddle, setting, algorithm, topology, std)
        kick = None
        if algorithm != "SSGD*" and setting.global_batch == saddle.samples:
            kick = kicks(saddle, setting, topology(0)) if algorithm == "DPSGD" else 0.0
        cases.append(Case(saddle, setting, algorithm, std, kick, paths))
    return cases


def _check(arguments: argparse.Namespace) -> None:
    samples, learners = arguments.samples, arguments.learners
    if samples % 4:
        raise UserError(f"--samples {samples}: must be a multiple of 4")
    for batch in arguments.batches:
        if batch > samples // learners:
            raise UserError(
                f"--batches {batch}: must be at most {samples // learners}, for {learners} "
                f"learners and {samples} samples"
            )
    if arguments.start >= arguments.left:
        raise UserError(f"--start {arguments.start:g}: must be below --left")


def _measure(arguments: argparse.Namespace, world: World, cases: list[Case]) -> SaddleStudy:
    """The times of all cases. Collective."""
    timed = []
    what = f"saddle on {world.size} ranks, rank 0"
    with Progress(len(cases), what, "cases", shown=world.rank == 0) as progress:
        for case in cases:
            times = dealt_out(range(arguments.seeds), partial(_times, case), world)
            timed.append(replace(case, times=np.array(times)))
            progress.add()
    return SaddleStudy(timed, arguments.topology, arguments.seeds)


def _times(case: Case, seeds: Iterable[int]) -> Array:
    return leaving_times(case.paths(seeds), case.setting)
