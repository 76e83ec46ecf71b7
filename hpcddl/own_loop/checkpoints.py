"""Checkpoints of a loop of one's own, in the form of a run's (run/checkpoint.py)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcddl.cluster.world import AgreedError
from hpcddl.common.errors import warn
from hpcddl.run import checkpoint, intact
from hpcddl.run.finite_state import not_finite
from hpcddl.run.resume import learner_state, restore
from hpcddl.strategies.base import Strategy
from hpcddl.training.position import Position


def save(folder: Path, strategy: Strategy, extra: dict[str, Any], keep: int) -> None:
    """Writes all learners' states after this update; only the last `keep` checkpoints stay.

    Raises:
        AgreedError: a learner's state is not finite, or a rank could not write; older checkpoints
            stay as they were.
    """
    world = strategy.world
    state = {**learner_state(strategy), "generators": _generators(), "extra": extra}
    if fault := not_finite(strategy.model, state, world):
        text = f"checkpoint in {folder}: not written, older ones stay: {fault}"
        raise AgreedError(text, world.rank)
    position = Position(step=strategy.step, steps=strategy.step, learners=world.size)
    checkpoint.save(folder, world, position, state, {}, keep, ())


def resume(folder: Path, strategy: Strategy, seed: int) -> dict[str, Any] | None:
    """Goes on from the newest whole checkpoint; its `extra`, or None where there is none."""
    world = strategy.world
    search = intact.newest_intact(folder, world)
    found = search.found
    if found is None:
        return None
    if world.rank == 0:
        for fault in search.faults.values():
            warn(f"{fault}; going on from {found.folder.name}")
    restore(strategy, found, seed)
    as_before = found.learners == world.size
    state = world.together(lambda: found.learner(world.rank if as_before else 0))
    if as_before:
        _set_generators(state["generators"])
    extra: dict[str, Any] = state["extra"]
    return extra


def _generators() -> dict[str, Any]:
    """The states of the generators that every library of a loop may draw from, to be saved."""
    version, numbers, normal = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    keys = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": [version, list(numbers), normal],
        "numpy": {**numpy, "state": {**numpy["state"], "key": keys}},
    }


def _set_generators(states: dict[str, Any]) -> None:
    version, numbers, normal = states["python"]
    random.setstate((version, tuple(numbers), normal))
    inner = states["numpy"]["state"]
    state = {**inner, "key": inner["key"].numpy().astype(np.uint32)}
    np.random.set_state({**states["numpy"], "state": state})  # noqa: NPY002
