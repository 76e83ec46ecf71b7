"""`hpcddl train`: trains a recipe on the ranks of a launcher, into a run directory."""

import argparse
import time
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.commands.smoke import smoke
from hpcddl.common.errors import UserError
from hpcddl.data.staging import folder_argument
from hpcddl.recipes import name_of
from hpcddl.run.config import load_config
from hpcddl.run.fit import fit
from hpcddl.run.overrides import word_of
from hpcddl.run.stopping import STATUS, Stopped, noticing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl train`."""
    parser.description = "Train a network on all ranks that the launcher (mpirun, srun) started."
    parser.epilog = (
        "example: mpirun -np 4 hpcddl train swb300.dpsgd data.path=shards/swb300 --out runs/a"
    )
    parser.add_argument("recipe", help="a packaged recipe (see `hpcddl recipes`) or a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace the recipe's; dots lead into sections, as in model.layers=2",
    )
    parser.add_argument("--out", type=Path, help="the run directory (default: runs/RECIPE)")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the data set, in place of the recipe's data.path; with --resume the run's own, where "
        "it lies now",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest intact checkpoint, if there is one; the number of ranks may "
        "differ",
    )
    parser.add_argument(
        "--stage",
        type=folder_argument,
        metavar="DIR",
        help="first copy the data to this folder on the disk of every node, and read it there",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="only check that the recipe runs here: two steps, each with evaluation and "
        "checkpoint, and a restart between them, on random samples in a temporary folder; the "
        "batch is a few samples per learner unless global_batch=N is given",
    )


def run(arguments: argparse.Namespace) -> int:
    """Trains; exit status 0 if the run ended by itself, diverged or not.

    1 after a --smoke that failed; 75 if SIGUSR2 or SIGTERM stopped the run with a checkpoint.
    """
    began = time.time()
    a = arguments
    # What the recipe comes to is compared later, key by key; nodes may have other disks.
    own = {"recipe", "overrides", "data", "stage"}
    world = World.create({key: value for key, value in vars(a).items() if key not in own})
    with world.failing_together():
        data = [] if a.data is None else [word_of("data.path", a.data)]
        config = world.together(lambda: load_config(a.recipe, [*a.overrides, *data]))
        if a.smoke:
            world.together(lambda: _check_smoke(a))
            own_batch = any(word.startswith("global_batch=") for word in a.overrides)
            return smoke(a.recipe, config, world, began, own_batch)
        folder = a.out or default_folder(a.recipe)
        try:
            with noticing() as notice:
                fit(config, world, folder, notice, began=began, go_on=a.resume, node_folder=a.stage)
        except Stopped:
            return STATUS
    return 0


def default_folder(recipe: str) -> Path:
    """Returns runs/NAME for a packaged recipe (whose name has dots in it) or a YAML file."""
    return Path("runs") / name_of(recipe)


def _check_smoke(arguments: argparse.Namespace) -> None:
    for option in ("out", "resume", "stage"):
        if getattr(arguments, option):
            raise UserError(f"--smoke: leaves nothing behind; not with --{option}")
