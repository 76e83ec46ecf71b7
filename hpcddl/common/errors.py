"""The one kind of error that is the user's to mend, and warnings of what a run survives."""

import sys


class UserError(Exception):
    """Bad input: one line that names the field, the value and what is allowed.

    The command line prints it once, on rank 0, without a traceback, and exits with status 2.
    """

    rank: int | None = None  # set where every rank of a job raises the same error


def warn(text: str) -> None:
    """One line on the standard error; on several ranks the caller lets one of them say it."""
    print(f"hpcddl: warning: {text}", file=sys.stderr, flush=True)
