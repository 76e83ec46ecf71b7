"""`hpcddl reproduce b-fig6`: time of local SGD on w8a (paper B app. B.2, fig. 6)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.reproduce.b_fig6_plot import draw
from hpcddl.reproduce.b_fig6_report import Terms, TimeStudy, report
from hpcddl.reproduce.logistic import Logistic, minimum, read_logistic
from hpcddl.reproduce.on_ranks import dealt_out, run_study
from hpcddl.reproduce.target import Combination, iterations_to
from hpcddl.tune.rate_search import RateTrial, search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce b-fig6`."""
    parser.description = (
        "Time of local SGD to f - f* <= TARGET on logistic regression, in gradient computations, "
        "by (a) local batch and local steps and (b) number of learners, each at its best rate. "
        "All K learners are computed in one process; ranks share the combinations."
    )
    parser.epilog = "example: mpirun -np 2 hpcddl reproduce b-fig6 --data shards/w8a"
    add, count, several = parser.add_argument, at_least(1), at_least(2)
    add("--data", type=Path, required=True, help="shard set, see `hpcddl prep libsvm`")
    add("--out", type=Path, default=Path("runs/b-fig6"), help="folder of tables and picture")
    steps = [1, 4, 16, 64]
    add("--steps", type=count, nargs="+", default=steps, metavar="H", help="local steps")
    add(
        "--batches",
        type=count,
        nargs="+",
        default=[16, 64, 256],
        metavar="B",
        help="local batches of panel (a)",
    )
    add("--at-learners", type=several, default=16, metavar="K", help="learners of panel (a)")
    learners = [2, 4, 8, 16, 32, 64]
    add(
        "--learners",
        type=several,
        nargs="+",
        default=learners,
        metavar="K",
        help="numbers of learners of panel (b)",
    )
    add("--at-batch", type=count, default=16, metavar="B", help="local batch of panel (b)")
    add("--seeds", type=count, default=3, help="data orders, of which medians are taken")
    # The least target is far above what is known of f*, the least highest rate is tried first.
    add("--target", type=at_least(1e-6), default=0.005, help="f - f* to reach")
    cost = "cost of one average, in gradient computations"
    add("--round-cost", type=at_least(0.0), default=25.0, help=cost)
    highest = "no rate above it is tried"
    add("--highest-rate", type=at_least(4.0), default=1024.0, help=highest)
    limit = "counted time after which a run is given up"
    add("--limit", type=at_least(1.0), default=3e5, help=limit)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the study is written, whatever came out."""
    return run_study(arguments, _prepare, _measure, report, draw)


def _prepare(arguments: argparse.Namespace, world: World) -> Logistic:
    problem = read_logistic(arguments.data)
    samples = len(problem.signs)
    for one in _combinations(arguments):
        if one.learners * one.batch > samples:
            raise UserError(
                f"--learners, --batches: {one.learners} learners with a local batch of "
                f"{one.batch}: must be at most the {samples} samples at once"
            )
    return problem


def _combinations(arguments: argparse.Namespace) -> list[Combination]:
    """One learner, panel (a), panel (b); each combination once."""
    a, b = arguments.at_learners, arguments.at_batch
    panel_a = [Combination(a, batch, h) for batch in arguments.batches for h in arguments.steps]
    panel_b = [Combination(k, b, h) for k in arguments.learners for h in arguments.steps]
    return list(dict.fromkeys([Combination(1, b, 1), *panel_a, *panel_b]))


def _measure(arguments: argparse.Namespace, world: World, problem: Logistic) -> TimeStudy:
    """Every combination at all its rates. Collective."""
    lowest, _ = minimum(problem)

    def tried_rates(one: Combination) -> list[RateTrial]:
        level = lowest + arguments.target
        return search(
            lambda rate, seed, limit: iterations_to(
                problem, level, one, rate=rate, seed=seed, limit=limit
            ),
            arguments.seeds,
            arguments.limit / one.cost(1, arguments.round_cost),
            arguments.highest_rate,
        )

    def measured(mine: Sequence[Combination]) -> Iterator[list[RateTrial]]:
        what = f"b-fig6 on {world.size} ranks, rank 0"
        with Progress(len(mine), what, "combinations", shown=world.rank == 0) as progress:
            for one in mine:
                yield tried_rates(one)
                progress.add()

    combinations = _combinations(arguments)
    dearest_first = sorted(combinations, key=lambda c: (-c.learners * c.batch, c.steps))
    trials = dealt_out(dearest_first, measured, world)
    found = dict(zip(dearest_first, trials, strict=True))
    terms = Terms(
        target=arguments.target,
        round_cost=arguments.round_cost,
        limit=arguments.limit,
        highest_rate=arguments.highest_rate,
        seeds=arguments.seeds,
        lowest=lowest,
        samples=len(problem.signs),
        l2=problem.l2,
    )
    ordered = {one: found[one] for one in combinations}
    return TimeStudy(ordered, arguments.at_learners, arguments.at_batch, terms)
