"""Paper A's figure 2: SSGD, SSGD* and DPSGD on a small network, on real ranks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from math import inf, isnan
from pathlib import Path
from statistics import median
from typing import Any

from hpcddl.cluster.world import World
from hpcddl.commands.table import call
from hpcddl.common.bounds import above, at_least
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import MANIFEST
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.shards import Shards, open_split
from hpcddl.reproduce.fig2_plot import draw
from hpcddl.reproduce.fig2_report import Panel, PanelStudy, report
from hpcddl.reproduce.fig2_run import PanelRun, PanelSetting, run_once
from hpcddl.reproduce.on_ranks import run_study
from hpcddl.tune.noise_search import TRIALS, search_std

_DIGITS_BATCH, _DIGITS_SCALE = 240, 1.5
_BATCH, _SCALE = 2000, 1.0


def command_of(panel: Panel) -> tuple[Callable[..., None], Callable[..., int]]:
    """Makes `add_arguments` and `run` of a panel's command."""
    return partial(_add_arguments, panel), partial(_run, panel)


def _add_arguments(panel: Panel, parser: argparse.ArgumentParser) -> None:
    n = panel.learners
    parser.description = (
        f"SSGD, SSGD* and DPSGD of {n} learners at alpha = {panel.rate:g} on a network with two "
        "hidden layers of 50: loss, test error and effective learning rate (paper A, fig. 2)."
    )
    parser.epilog = f"example: mpirun -np {n} hpcddl reproduce {panel.name} --data shards/mnist"
    add, count = parser.add_argument, at_least(1)
    add("--data", type=Path, help="set of images; without, scikit-learn's digits are packed in OUT")
    add("--out", type=Path, default=Path("runs") / panel.name, help="folder for the results")
    add("--seeds", type=count, default=5, help="runs of each algorithm")
    add("--updates", type=count, default=panel.updates, help="of each run, in whole epochs")
    add("--batch", type=count, help=f"global batch; {_BATCH} with --data, else {_DIGITS_BATCH}")
    scales = f"factor of pixels (0 .. 1); {_SCALE:g} with --data, else {_DIGITS_SCALE:g}"
    add("--scale", type=above(0), help=scales)
    noise = "SSGD*'s standard deviation, instead of a search for it"
    add("--noise", type=at_least(0.0), help=noise)
    add("--search-seeds", type=count, default=1, help="runs of each noise that the search tries")
    add("--every", type=count, default=10, help="updates from one measurement to the next")


def _run(panel: Panel, arguments: argparse.Namespace) -> int:
    return run_study(arguments, partial(_check, panel), partial(_train_all, panel), report, draw)


def _check(panel: Panel, arguments: argparse.Namespace, world: World) -> None:
    n = panel.learners
    if arguments.batch is not None and arguments.batch % n:
        raise UserError(f"--batch {arguments.batch}: must be a multiple of the {n} learners")
    if world.size != n:
        raise UserError(
            f"{panel.name}: {world.size} ranks, must be {n} (mpirun -np {n} hpcddl reproduce "
            f"{panel.name}; with --oversubscribe on fewer cores)"
        )


def _train_all(panel: Panel, arguments: argparse.Namespace, world: World, _: None) -> PanelStudy:
    """Makes every run of the panel. Collective."""
    given = arguments.data is not None
    folder = arguments.data if given else arguments.out / "digits"
    if not given:
        world.on_rank_zero(lambda: _pack_digits(folder))
    train_set, test_set = world.together(lambda: _open(folder))
    batch = arguments.batch or (_BATCH if given else _DIGITS_BATCH) // world.size * world.size
    steps = world.together(lambda: steps_per_epoch(len(train_set), world.size, batch // world.size))
    setting = PanelSetting(
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

        def train(strategy: dict[str, Any], std: float, seed: int) -> PanelRun:
            found = run_once(world, train_set, test_set, setting, strategy, std=std, seed=seed)
            progress.add()
            return found

        @cache  # the search's runs count among the last ones
        def ssgd(std: float, seed: int) -> PanelRun:
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
    return PanelStudy(
        panel=panel,
        setting=setting,
        data=str(arguments.data) if given else "scikit-learn's digits",
        samples=len(train_set),
        updates=setting.epochs * steps,
        runs=runs,
        tried=tried,
        search_seeds=search_seeds,
    )


def _pack_digits(folder: Path) -> None:
    """Packs scikit-learn's digits, unless they are there."""
    if not (folder / MANIFEST).exists():
        call("prep digits", ["--out", str(folder), "--heldout-fraction", "0.2"])


def _open(folder: Path) -> tuple[Shards, Shards]:
    splits = open_split(folder, "train"), open_split(folder, "heldout")
    if splits[0].label_shape or len(splits[0].shape) != 3:
        raise UserError(
            f"--data {folder}: samples of {splits[0].shape}; must be images with one label each"
        )
    return splits
