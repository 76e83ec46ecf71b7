"""`hpcddl tune`: the papers' searches, every trial a run of `hpcddl train` that is kept."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import mpi4py

from hpcddl.cluster.launcher import promised_size
from hpcddl.commands.start import parse_launcher
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder
from hpcddl.recipes import name_of
from hpcddl.run.stopping import STATUS, Stopped

_MEASURES = ("heldout_loss", "heldout_error")
_MOST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl tune`."""
    parser.description = (
        "Search the best learning rate of a recipe (paper B app. A.4), SSGD*'s noise (paper A "
        "sec. 4.3), isotropic gradient noise (paper B app. C.5), or any other positive number, by "
        "the median over seeds. A trial that diverges or is not better than guessing is infinitely "
        "bad. Every run is kept as a run directory; the same command goes on where it was stopped."
    )
    parser.epilog = (
        "example: hpcddl tune mini.dpsgd data.path=shards/mine --factor 2 --seeds 3 "
        "--launcher 'mpirun -np 4'"
    )
    add = parser.add_argument
    add("recipe", help="a packaged recipe (see `hpcddl recipes`) or a YAML file")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace the recipe's in every trial",
    )
    add(
        "--over",
        default="rate",
        metavar="rate|noise|gradient-noise|KEY",
        help="the setting to search",
    )
    add(
        "--launcher",
        required=True,
        default=argparse.SUPPRESS,
        help="what starts a trial's ranks, such as 'mpirun -np 4' or 'srun --mpi=pmix'",
    )
    add(
        "--factor",
        type=at_least(1.01),
        help="factor between neighbouring values of a growing grid; without it, rate goes in the "
        "paper's equal steps of 1/32 of the recipe's, KEY by factors of 2",
    )
    add(
        "--trials",
        type=at_least(1),
        help=f"at most so many values of a growing grid; {_MOST} unless given",
    )
    seeds = "runs per value, with the recipe's seed and the next ones"
    add("--seeds", type=at_least(1), default=1, help=seeds)
    add("--by", choices=_MEASURES, default="heldout_loss", help="the measure to minimise")
    add("--out", type=Path, help="folder of the trials (default: runs/RECIPE.tune.OVER)")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the search has ended, 1 when a run failed or it was interrupted.

    75 when a signal has stopped the run under way.
    """
    _check(arguments)
    # This process only starts others: MPI is theirs.
    mpi4py.rc.initialize = False
    from hpcddl.tune.trials import RunFailed

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _tune(arguments)
    except RunFailed as failure:
        print(f"hpcddl tune: {failure}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Stopped) as why:
        print("\nhpcddl tune: stopped; the same command goes on from here", file=sys.stderr)
        return STATUS if isinstance(why, Stopped) else 1
    return 0


def _tune(arguments: argparse.Namespace) -> None:
    from hpcddl.run.config import load_config
    from hpcddl.tune.finished_search import carry_out, choose
    from hpcddl.tune.picture import draw
    from hpcddl.tune.report import table, verdict, write
    from hpcddl.tune.trials import Trainer

    recipe, overrides, over = arguments.recipe, tuple(arguments.overrides), arguments.over
    config = load_config(recipe, overrides)
    seeds = range(config.seed, config.seed + arguments.seeds)
    name = name_of(recipe)
    out = arguments.out or Path("runs") / f"{name}.tune.{over}"
    trainer = Trainer(recipe, overrides, seeds, parse_launcher(arguments.launcher), out)
    search = choose(config, over, arguments.factor, trainer, arguments.trials or _MOST)
    folder = StudyFolder(out)
    print(f"{search.description}; seeds: {len(seeds)}; in {out}", flush=True)
    study = carry_out(search, trainer, arguments.by)
    write(study, folder)
    draw(study, folder)
    print("", table(study), "", verdict(study), "", folder, sep="\n")


def _check(arguments: argparse.Namespace) -> None:
    ranks = promised_size(os.environ) or 1
    if ranks > 1:
        raise UserError(
            f"tune: {ranks} ranks, must be 1, without a launcher (--launcher starts the trials)"
        )
    for name in ("factor", "trials"):
        if getattr(arguments, name) is not None and arguments.over in ("noise", "gradient-noise"):
            raise UserError(f"--{name}: --over {arguments.over} has the paper's values")
