"""Joins the ranks of a script, and ends all of them when one fails."""

from __future__ import annotations

import sys
import threading
import traceback
from functools import cache, partial
from types import TracebackType

from hpcddl.cluster.world import AgreedError, World
from hpcddl.common.errors import UserError


@cache
def init() -> World:
    """Joins this process to the other ranks of its job, one learner each. Collective.

    Under `mpirun` or `srun` these are the processes that it started; without a launcher the process
    is a learner alone. From here on, an exception that nobody catches ends all ranks, also one in a
    thread: with status 2 and one line for a `UserError`, else with status 1 and its traceback. A
    second call returns the same world.

    Returns:
        The world: `rank`, `size`, and the `device` on which this rank's network belongs.

    Raises:
        UserError: the launcher and MPI do not fit, or a node has more ranks than GPUs.
    """
    sys.excepthook = partial(_end, None)
    world = World.create()
    sys.excepthook = partial(_end, world)
    threading.excepthook = world.end_with_thread
    return world


def _end(
    world: World | None,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Stands for sys.excepthook: says what was wrong, and ends all ranks."""
    if isinstance(error, AgreedError) and error.rank:
        raise SystemExit(2)  # rank 0 says it
    if isinstance(error, UserError):
        status, text = 2, f"hpcddl: error: {error}\n"
    else:
        status, text = 1, "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(text)
    sys.stderr.flush()
    if world is not None and world.size > 1 and not isinstance(error, AgreedError):
        world.comm.Abort(status)
    raise SystemExit(status)
