"""Paper A's figure 2: SSGD, SSGD* and DPSGD on a small network, on real ranks."""

from __future__ import annotations

import argparse
from functools import cache
from math import inf, isnan
from pathlib import Path
from statistics import median
from typing import Any

from hpcddl.cluster.world import World
from hpcddl.common.bounds import check_above_zero, check_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import MANIFEST
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.shards import Shards, open_split
from hpcddl.reproduce.fig2_plot import draw
from hpcddl.reproduce.fig2_report import Panel, Study, table, write
from hpcddl.reproduce.fig2_run import Run, Setting, run_once
from hpcddl.reproduce.prepare import make_folder, prep
from hpcddl.tune.noise_search import TRIALS, search_std

_LOWEST = {"seeds": 1, "search_seeds": 1, "updates": 1, "every": 1, "batch": 1, "noise": 0}
_DIGITS_BATCH, _DIGITS_SCALE = 240, 1.5
_BATCH, _SCALE = 2000, 1.0


def add_arguments(parser: argparse.ArgumentParser, panel: Panel) -> None:
    """The options of `hpcddl reproduce fig2a` and `fig2b`."""
    n = panel.learners
    parser.description = (
        f"SSGD, SSGD* and DPSGD of {n} learners at alpha = {panel.rate:g} on a network with two "
        "hidden layers of 50: loss, test error and effective learning rate (paper A, fig. 2)."
    )
    parser.epilog = f"example: mpirun -np {n} hpcddl reproduce {panel.name} --data shards/mnist"
    add = parser.add_argument
    add("--data", type=Path, help="set of images; without, scikit-learn's digits are packed in OUT")
    add("--out", type=Path, default=Path("runs") / panel.name, help="folder of what comes out")
    add("--seeds", type=int, default=5, help="runs of each algorithm")
    add("--updates", type=int, default=panel.updates, help="of each run, rounded up to epochs")
    add("--batch", type=int, help=f"nB; of DATA {_BATCH}, of the digits {_DIGITS_BATCH}")
    add("--scale", type=float, help=f"of pixels 0 .. 1; of DATA {_SCALE:g}, else {_DIGITS_SCALE:g}")
    add("--noise", type=float, help="SSGD*'s standard deviation, instead of a search for it")
    add("--search-seeds", type=int, default=1, help="runs of each noise that the search tries")
    add("--every", type=int, default=10, help="updates from one measurement to the next")


def run(arguments: argparse.Namespace, panel: Panel) -> int:
    """Exit status 0 when the panel is written, whatever came out."""
    world = World.create()
    with world.failing_together():
        world.together(lambda: _check(arguments, panel, world.size))
        study = _study(arguments, panel, world)
        if world.rank == 0:
            _report(study, arguments.out)
    return 0


def _check(arguments: argparse.Namespace, panel: Panel, ranks: int) -> None:
    n = panel.learners
    check_least(arguments, _LOWEST)
    check_above_zero(arguments, "scale")
    if arguments.batch is not None and arguments.batch % n:
        raise UserError(f"--batch: {arguments.batch}, allowed: multiples of the {n} learners")
    if ranks != n:
        raise UserError(
            f"{panel.name}: {ranks} ranks, allowed: {n} (mpirun -np {n} hpcddl reproduce "
            f"{panel.name}; with --oversubscribe on fewer cores)"
        )


def _study(arguments: argparse.Namespace, panel: Panel, world: World) -> Study:
    """Every run of the panel. Collective."""
    given = arguments.data is not None
    folder = arguments.data if given else arguments.out / "digits"
    world.together(lambda: _prepare(arguments, folder) if world.rank == 0 else None)
    train_set, test_set = world.together(lambda: _open(folder))
    batch = arguments.batch or (_BATCH if given else _DIGITS_BATCH) // world.size * world.size
    steps = world.together(lambda: steps_per_epoch(len(train_set), world.size, batch // world.size))
    setting = Setting(
        rate=panel.rate,
        global_batch=batch,
        epochs=-(-arguments.updates // steps),
        every=arguments.every,
        scale=(arguments.scale or (_SCALE if given else _DIGITS_SCALE)) / 255,
    )
    seeds, search_seeds = range(arguments.seeds), arguments.search_seeds
    total = 3 * len(seeds)
    if arguments.noise is None:
        total += TRIALS * search_seeds - min(len(seeds), search_seeds)
    with Progress(total, panel.name, "runs", shown=world.rank == 0) as progress:

        def train(strategy: dict[str, Any], std: float, seed: int) -> Run:
            found = run_once(world, train_set, test_set, setting, strategy, std=std, seed=seed)
            progress.add()
            return found

        @cache  # the search's runs count among the last ones
        def ssgd(std: float, seed: int) -> Run:
            return train({"name": "ssgd"}, std, seed)

        def loss_of(std: float) -> float:
            losses = [ssgd(std, seed).loss for seed in range(search_seeds)]
            return median(inf if isnan(loss) else loss for loss in losses)

        dpsgd = {"name": "dpsgd", "topology": panel.topology}
        runs = {"SSGD": [ssgd(0.0, seed) for seed in seeds]}
        runs["DPSGD"] = [train(dpsgd, 0.0, seed) for seed in seeds]
        tried = search_std(loss_of) if arguments.noise is None else {}
        std = next(iter(tried), arguments.noise)
        runs["SSGD*"] = [ssgd(std, seed) for seed in seeds]
    return Study(
        panel=panel,
        setting=setting,
        data=str(arguments.data) if given else "scikit-learn's digits",
        samples=len(train_set),
        updates=setting.epochs * steps,
        runs=runs,
        tried=tried,
        search_seeds=search_seeds,
    )


def _prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """The folder of results, and in it the digits unless a set is given or they are there."""
    make_folder(arguments.out)
    if arguments.data is None and not (folder / MANIFEST).exists():
        prep("digits", "--out", str(folder), "--heldout-fraction", "0.2")


def _open(folder: Path) -> tuple[Shards, Shards]:
    splits = open_split(folder, "train"), open_split(folder, "heldout")
    if splits[0].label_shape or len(splits[0].shape) != 3:
        raise UserError(
            f"--data {folder}: samples of {splits[0].shape}; allowed: images with one label each"
        )
    return splits


def _report(study: Study, folder: Path) -> None:
    print(table(study))
    for statement in study.panel.statements(study):
        print(f"\n{statement}")
    write(study, folder)
    draw(study, folder)
    name = study.panel.name
    print(f"\n{folder}: table.csv, results.json, {name}.png, {name}.pdf")
