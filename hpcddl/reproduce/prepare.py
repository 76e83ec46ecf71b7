"""Data that a reproduction packs for itself, by the commands that a user would type."""

import argparse
import importlib
from pathlib import Path

from hpcddl.common.errors import UserError


def make_folder(folder: Path) -> None:
    """With its parents, unless it is there.

    Raises:
        UserError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written: {error.strerror}") from None


def prep(what: str, *words: str) -> None:
    """`hpcddl prep WHAT WORDS`, in this process."""
    # data_prep knows this package; by the command's table this package need not know data_prep.
    from hpcddl.cli import COMMANDS

    command = importlib.import_module(COMMANDS[f"prep {what}"][0])
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args(words))
