"""`hpcddl recipes`: what can be trained by name."""

import argparse
from pathlib import Path

import yaml

from hpcddl.errors import UserError
from hpcddl.recipes import find_recipe, names, read_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl recipes`."""
    parser.description = (
        "List the packaged recipes, show one with its base merged in, or draw its learning rate."
    )
    parser.epilog = "example: hpcddl recipes swb300.dpsgd --plot rate.png"
    parser.add_argument("name", nargs="?", help="the recipe to show in full")
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path("schedule.png"),
        metavar="OUT",
        help="draw NAME's learning rate over epochs (.png, .pdf or .svg), if not to schedule.png",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints one line per recipe, one recipe as YAML, or where its picture is.

    Raises:
        UserError: a picture of no recipe.
    """
    if arguments.plot:
        if not arguments.name:
            raise UserError("--plot: needs the recipe first, as in `hpcddl recipes NAME --plot`")
        return _plot(arguments.name, arguments.plot)
    if arguments.name:
        print(yaml.safe_dump(read_recipe(find_recipe(arguments.name)), sort_keys=False), end="")
        return 0
    width = max(map(len, names()))
    for name in names():
        print(f"{name:<{width}}  {read_recipe(find_recipe(name))['description']}")
    return 0


def _plot(name: str, out: Path) -> int:
    # Imported here: a list of names must not wait for torch.
    from hpcddl.config import load_config
    from hpcddl.recipes.plot import draw_schedule

    draw_schedule(load_config(name), name, out)
    print(f"picture: {out}")
    return 0
