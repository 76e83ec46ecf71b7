"""What the benchmarks refuse."""

import argparse

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError


def check(name: str, world: World, arguments: argparse.Namespace, *counts: str) -> None:
    """Raises UserError for an odd number of ranks, or an option of `counts` below 1."""
    if world.size % 2:
        raise UserError(f"{name}: needs an even number of ranks, got {world.size}")
    for count in counts:
        value = getattr(arguments, count)
        if value < 1:
            raise UserError(f"--{count.replace('_', '-')}: {value}, allowed: at least 1")
