"""The command `hpcddl`: finds the subcommand, calls it, and sets the exit status."""

import os
import sys
from collections.abc import Sequence

from hpcddl.cluster import mpi_start
from hpcddl.cluster.launcher import promised_rank
from hpcddl.commands.table import COMMANDS, call
from hpcddl.common.errors import UserError


def main(words: Sequence[str] | None = None) -> int:
    """Runs one subcommand: 0 done, 2 the input was wrong (one line says how), 1 anything else."""
    words = list(sys.argv[1:] if words is None else words)
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
    if name is None:
        return _help(words)
    mpi_start.prepare(os.environ)
    try:
        return call(name, words[len(name.split()) :])
    except UserError as error:
        if _rank(error) == 0:
            print(f"hpcddl: error: {error}", file=sys.stderr, flush=True)
        return 2
    except BrokenPipeError:
        if "mpi4py.MPI" in sys.modules:
            _abort_at_exit()
            raise
        # Whoever read the output, as `head` does, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        _abort_at_exit()
        raise


def _help(words: Sequence[str]) -> int:
    """The list of commands; status 2 unless it was asked for."""
    if words[:1] == ["--version"]:
        from hpcddl import __version__

        print(f"hpcddl {__version__}")
        return 0
    asked = not words or words[-1] in ("-h", "--help", "help")
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    text = "usage: hpcddl COMMAND ...\n\n" + "\n".join(lines)
    text += "\n\n`hpcddl COMMAND --help` shows its options and an example."
    if not asked:
        unknown = " ".join(words[:2])
        text = f"hpcddl: error: command {unknown!r}: must be one of {', '.join(COMMANDS)}"
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _abort_at_exit() -> None:
    """A rank that fails outside a World (an import that breaks on one node) must end the job too.

    Left to itself it would wait in MPI_Finalize for ranks that wait for it.
    """
    if "mpi4py.MPI" in sys.modules and {"PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        from mpi4py.run import set_abort_status

        set_abort_status(1)


def _rank(error: UserError) -> int:
    """The rank that reports `error`; before MPI has started, the launcher's word for it."""
    if error.rank is not None:
        return error.rank
    return promised_rank(os.environ)


if __name__ == "__main__":
    sys.exit(main())
