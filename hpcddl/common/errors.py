"""The error for input that the user can correct, and warnings that do not end a run."""

import sys


class UserError(Exception):
    """Bad input: one line that names the field, the value and what is allowed.

    The command line prints it once, on rank 0, without a traceback, and exits with status 2.
    """

    rank: int | None = None  # set where every rank of a job raises the same error


def warn(text: str) -> None:
    """Prints a warning line to standard error; the caller makes sure that only one rank does."""
    print(f"hpcddl: warning: {text}", file=sys.stderr, flush=True)
