"""Computes values at many points, divided among the ranks and stored as they come."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole
from hpcddl.common.progress import Progress

Values = tuple[float, ...]
_TAG = 17


def values_at(
    points: int,
    value: Callable[[int], Values],
    columns: int,
    kept: Path,
    settings: dict[str, Any],
    world: World,
    what: str,
) -> NDArray[np.float64]:
    """(points, columns) of value(0), value(1), ... on every rank. Collective.

    All points cost the same, so each rank takes every n-th. Rank 0 writes each one to the file
    `kept` as soon as it comes; those that the file has already are not computed again.

    Args:
        settings: all that the values depend on; the file's must be the same.

    Raises:
        UserError: `kept` has values of other settings, is no such file, or cannot be written.
    """
    table = np.full((points, columns), np.nan)
    known = world.comm.bcast(
        world.together(lambda: _known(kept, settings, table) if world.rank == 0 else None)
    )
    missing = [number for number in range(points) if number not in known]
    mine = missing[world.rank :: world.size]
    if world.rank == 0:
        with open(kept, "a", encoding="ascii") as file, Progress(len(missing), what, "points") as p:

            def keep(number: int, values: Values) -> None:
                table[number] = values
                print(number, *values, file=file, flush=True)
                p.add()

            for number in mine:
                keep(number, value(number))
                while world.comm.Iprobe(tag=_TAG):
                    keep(*_receive(world.comm, columns))
            while p.done < len(missing):
                keep(*_receive(world.comm, columns))
    else:
        for number in mine:
            world.comm.Send(np.array([number, *value(number)]), dest=0, tag=_TAG)
    world.comm.Bcast(table)
    return table


def _receive(comm: MPI.Intracomm, columns: int) -> tuple[int, Values]:
    message = np.empty(1 + columns)
    comm.Recv(message, tag=_TAG)
    return int(message[0]), tuple(message[1:].tolist())


def _known(kept: Path, settings: dict[str, Any], table: NDArray[np.float64]) -> set[int]:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        return _open(kept, settings, table)
    except OSError as error:
        raise UserError(f"--out {kept.parent}: cannot be used: {error.strerror}") from None


def _open(kept: Path, settings: dict[str, Any], table: NDArray[np.float64]) -> set[int]:
    """Fills `table` with what the file has; the numbers of those points."""
    head = json.dumps(settings)
    if not kept.exists():
        write_whole(kept, f"# {head}\n".encode())
        return set()
    content = kept.read_bytes()
    # A killed run may have left a part of a line, which nothing must be appended to.
    whole = content[: content.rfind(b"\n") + 1]
    try:
        first, *lines = whole.decode().splitlines()
        before = dict(json.loads(first.removeprefix("# ")))
        _refuse_change(kept, before, json.loads(head))
        numbers = set()
        for line in lines:
            number, *values = line.split()
            table[int(number)] = np.array(values, np.float64).reshape(table.shape[1])
            numbers.add(int(number))
    except (ValueError, IndexError, TypeError):
        raise UserError(f"{kept}: not what this command writes; --overwrite replaces it") from None
    os.truncate(kept, len(whole))
    return numbers


def _refuse_change(kept: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in now:
        if before.get(key) != now[key]:
            raise UserError(
                f"{kept}: made with {key}={before.get(key)}, not {now[key]}; give another --out, "
                "or --overwrite to begin anew"
            )
