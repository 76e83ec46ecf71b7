"""Data that a reproduction packs for itself, by the commands that a user would type."""

from pathlib import Path

from hpcddl.commands.table import call
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
    """Calls `hpcddl prep WHAT WORDS` in this process."""
    call(f"prep {what}", words)
