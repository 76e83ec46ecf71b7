"""`hpcddl recipes`: lists the papers' tables and figures, and the packaged recipes."""

import argparse
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.common.table import aligned
from hpcddl.common.yaml_file import write_yaml
from hpcddl.papers import is_name
from hpcddl.papers.show import full, listed
from hpcddl.recipes import find_recipe, names, read_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl recipes`."""
    parser.description = (
        "List the papers' tables and figures with their commands, then the packaged recipes (named "
        "sets of settings for `hpcddl train`). With a name: show the settings, commands and "
        "printed numbers of a table, or all settings of a recipe; or draw its learning rate."
    )
    parser.epilog = "example: hpcddl recipes a.table4; hpcddl recipes swb300.dpsgd --plot rate.png"
    parser.add_argument("name", nargs="?", help="the table, figure or recipe to show in full")
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path("schedule.png"),
        metavar="OUT",
        help="draw the recipe's learning rate over epochs to OUT (.png, .pdf or .svg; "
        "schedule.png if OUT is left out)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the lists, or one table or recipe, or the path of the picture drawn.

    Raises:
        UserError: no such table or recipe; --plot without a recipe.
    """
    if arguments.plot:
        if not arguments.name:
            raise UserError("--plot: needs the recipe first, as in `hpcddl recipes NAME --plot`")
        return _plot(arguments.name, arguments.plot)
    if arguments.name is None:
        print("\n".join([*listed(), "", *_recipes()]))
    elif is_name(arguments.name):
        print("\n".join(full(arguments.name)))
    else:
        print(write_yaml(read_recipe(find_recipe(arguments.name))), end="")
    return 0


def _recipes() -> list[str]:
    rows = [(name, read_recipe(find_recipe(name))["description"]) for name in names()]
    return ["recipes, for `mpirun -np N hpcddl train NAME`:", *aligned(rows, left=2)]


def _plot(name: str, out: Path) -> int:
    # Imported here: a list of names must not wait for torch.
    from hpcddl.commands.recipe_plot import draw_schedule
    from hpcddl.run.config import load_config

    draw_schedule(load_config(name), name, out)
    print(f"picture: {out}")
    return 0
