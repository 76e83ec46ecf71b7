"""A study on the ranks of a job: prepared on all of them, shared out, reported by rank 0."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from hpcddl.cluster.world import World
from hpcddl.common.study import StudyFolder
from hpcddl.run.stopping import STATUS, Stopped

Prepared = TypeVar("Prepared")
Found = TypeVar("Found")
Item = TypeVar("Item")


def run_study(
    arguments: Namespace,
    prepare: Callable[[Namespace, World], Prepared],
    measure: Callable[[Namespace, World, Prepared], Found],
    report: Callable[[Found, StudyFolder], None],
    draw: Callable[[Found, StudyFolder], None],
) -> int:
    """Runs a study and lists the files in its folder; the exit status, whatever came out.

    Args:
        arguments: `out` is the folder, made once all is prepared.
        prepare: checks and reads what the user gave, on every rank.
        measure: collective; where it raises Stopped, the status is 75 and there is no report.
        report: prints and writes what was found, and `draw` draws it; on rank 0 alone.
    """
    world = World.create(vars(arguments))
    with world.failing_together():
        prepared = world.together(lambda: prepare(arguments, world))
        folder = world.together(lambda: StudyFolder(arguments.out))
        try:
            found = measure(arguments, world, prepared)
        except Stopped:
            return STATUS
        if world.rank == 0:
            report(found, folder)
            draw(found, folder)
            print(f"\n{folder}")
    return 0


def dealt_out(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Iterable[Any]], world: World
) -> list[Any]:
    """Deals `items` out to the ranks in turns; all results, in the items' order. Collective.

    Args:
        work: a rank's items -> a result for each; not called for none.
    """
    mine = items[world.rank :: world.size]
    results: list[Any] = [None] * len(items)
    for rank, part in enumerate(world.comm.allgather(list(work(mine)) if mine else [])):
        results[rank :: world.size] = part
    return results
