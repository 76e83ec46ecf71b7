"""`hpcddl recipes`: what can be trained by name."""

import argparse

import yaml

from hpcddl.recipes import find_recipe, names, read_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl recipes`."""
    parser.description = "List the packaged recipes, or show one with its base merged in."
    parser.epilog = "example: hpcddl recipes mini.dpsgd"
    parser.add_argument("name", nargs="?", help="the recipe to show in full")


def run(arguments: argparse.Namespace) -> int:
    """Prints one line per recipe, or one recipe as YAML."""
    if arguments.name:
        print(yaml.safe_dump(read_recipe(find_recipe(arguments.name)), sort_keys=False), end="")
        return 0
    width = max(map(len, names()))
    for name in names():
        print(f"{name:<{width}}  {read_recipe(find_recipe(name))['description']}")
    return 0
