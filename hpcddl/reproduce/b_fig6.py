"""`hpcddl reproduce b-fig6`: time of local SGD on w8a (paper B app. B.2, fig. 6)."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.common.bounds import check_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.reproduce.b_fig6_plot import draw
from hpcddl.reproduce.b_fig6_report import Result, Study, statements, table, write
from hpcddl.reproduce.logistic import Logistic, minimum, read_logistic
from hpcddl.reproduce.prepare import make_folder
from hpcddl.reproduce.rate_search import Trial, search
from hpcddl.reproduce.target import Setting, iterations_to

_LOWEST = {
    "steps": 1,
    "batches": 1,
    "at_learners": 2,
    "learners": 2,
    "at_batch": 1,
    "seeds": 1,
    "target": 1e-6,  # far above what is known of f*
    "round_cost": 0,
    "highest_rate": 4,  # the lowest that is tried first
    "limit": 1,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce b-fig6`."""
    parser.description = (
        "Time of local SGD to f - f* <= TARGET on logistic regression, in gradient computations, "
        "by (a) local batch and local steps and (b) number of learners, each at its best rate. "
        "All K learners are computed in one process; ranks share the combinations."
    )
    parser.epilog = "example: mpirun -np 2 hpcddl reproduce b-fig6 --data shards/w8a"
    add = parser.add_argument
    add("--data", type=Path, required=True, help="shard set, see `hpcddl prep libsvm`")
    add("--out", type=Path, default=Path("runs/b-fig6"), help="folder of tables and picture")
    steps = [1, 4, 16, 64]
    add("--steps", type=int, nargs="+", default=steps, metavar="H", help="local steps")
    add("--batches", type=int, nargs="+", default=[16, 64, 256], metavar="B", help="of panel (a)")
    add("--at-learners", type=int, default=16, metavar="K", help="learners of panel (a)")
    learners = [2, 4, 8, 16, 32, 64]
    add("--learners", type=int, nargs="+", default=learners, metavar="K", help="of panel (b)")
    add("--at-batch", type=int, default=16, metavar="B", help="local batch of panel (b)")
    add("--seeds", type=int, default=3, help="data orders, of which medians are taken")
    add("--target", type=float, default=0.005, help="f - f* to reach")
    add("--round-cost", type=float, default=25.0, help="of one average, in gradient computations")
    add("--highest-rate", type=float, default=1024.0, help="no rate above it is tried")
    add("--limit", type=float, default=3e5, help="time, so counted, at which a run is given up")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the study is written, whatever came out."""
    world = World.create()
    with world.failing_together():
        return _run(arguments, world)


def _run(arguments: argparse.Namespace, world: World) -> int:
    world.together(lambda: check_least(arguments, _LOWEST))
    problem = world.together(lambda: read_logistic(arguments.data))
    settings = world.together(lambda: _settings(arguments, len(problem.signs)))
    world.together(lambda: make_folder(arguments.out))
    lowest, _ = minimum(problem)
    # The dearest first, dealt out in turns.
    order = sorted(settings, key=lambda s: (-s.learners * s.batch, s.steps))
    mine = order[world.rank :: world.size]
    results = []
    what = f"b-fig6 on {world.size} ranks, rank 0"
    with Progress(len(mine), what, "combinations", shown=world.rank == 0) as progress:
        for setting in mine:
            results.append(Result(setting, _trials(problem, lowest, setting, arguments)))
            progress.add()
    gathered = world.comm.gather(results)
    if gathered is not None:
        found = {result.setting: result for part in gathered for result in part}
        _report(
            Study(
                results=[found[setting] for setting in settings],
                at_learners=arguments.at_learners,
                at_batch=arguments.at_batch,
                round_cost=arguments.round_cost,
                target=arguments.target,
                limit=arguments.limit,
                highest_rate=arguments.highest_rate,
                seeds=arguments.seeds,
                lowest=lowest,
                samples=len(problem.signs),
                l2=problem.l2,
            ),
            arguments.out,
        )
    return 0


def _settings(arguments: argparse.Namespace, samples: int) -> list[Setting]:
    """One learner, panel (a), panel (b); each combination once."""
    a, b = arguments.at_learners, arguments.at_batch
    panel_a = [Setting(a, batch, h) for batch in arguments.batches for h in arguments.steps]
    panel_b = [Setting(k, b, h) for k in arguments.learners for h in arguments.steps]
    settings = list(dict.fromkeys([Setting(1, b, 1), *panel_a, *panel_b]))
    for setting in settings:
        if setting.learners * setting.batch > samples:
            raise UserError(
                f"--learners, --batches: {setting.learners} learners with a local batch of "
                f"{setting.batch}; allowed: at most the {samples} samples at once"
            )
    return settings


def _trials(
    problem: Logistic, lowest: float, setting: Setting, arguments: argparse.Namespace
) -> list[Trial]:
    def iterations_of(rate: float, seed: int, limit: float) -> float:
        level = lowest + arguments.target
        return iterations_to(problem, level, setting, rate=rate, seed=seed, limit=limit)

    limit = arguments.limit / setting.cost(1, arguments.round_cost)
    return search(iterations_of, arguments.seeds, limit, arguments.highest_rate)


def _report(study: Study, folder: Path) -> None:
    print(table(study))
    for statement in statements(study):
        print(f"\n{statement}")
    write(study, folder)
    draw(study, folder)
    print(f"\n{folder}: table.csv, results.json, b-fig6.png, b-fig6.pdf")
