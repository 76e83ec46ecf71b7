"""Finds the newest undamaged checkpoint to resume from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcddl.cluster.world import AgreedError, World
from hpcddl.run.checkpoint import Checkpoint, Damaged, folders, reached, read


@dataclass(frozen=True)
class Search:
    """The checkpoint that was found, if any, and the fault of each folder that was skipped."""

    found: Checkpoint | None
    faults: dict[Path, str]


def newest_intact(run: Path, world: World) -> Search:
    """Finds the newest undamaged checkpoint of `run`; all learners read it to its end. Collective.

    Raises:
        AgreedError: there are some, but all are damaged; one is of another version.
    """
    readable, faults = world.on_rank_zero(lambda: _manifests(run))
    for checkpoint in sorted(readable, key=reached, reverse=True):
        fault = _fault(checkpoint, world)
        if fault is None:
            return Search(checkpoint, faults)
        faults[checkpoint.folder] = fault
    if faults:
        raise AgreedError(
            f"--resume: {run}: no checkpoint is whole: {'; '.join(faults.values())}; to begin "
            "again, give another folder",
            world.rank,
        )
    return Search(None, {})


def tidy(run: Path, damaged: Iterable[Path]) -> None:
    """Renames damaged folders to NAME.damaged, no checkpoint's name; removes unfinished ones."""
    for partial in (run / "checkpoints").glob(".*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    for folder in damaged:
        aside = folder.with_name(f"{folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)


def _manifests(run: Path) -> tuple[list[Checkpoint], dict[Path, str]]:
    """The checkpoints whose manifests can be read, and the faults of the others."""
    readable: list[Checkpoint] = []
    faults: dict[Path, str] = {}
    for folder in folders(run):
        try:
            readable.append(read(folder))
        except Damaged as fault:
            faults[folder] = str(fault)
    return readable, faults


def _fault(checkpoint: Checkpoint, world: World) -> str | None:
    """The first fault of the learners' files, which the ranks share out; the same on all."""
    fault = None
    try:
        for learner in range(world.rank, checkpoint.learners, world.size):
            checkpoint.checked(learner)
    except Damaged as error:
        fault = str(error)
    return next((text for text in world.comm.allgather(fault) if text), None)
