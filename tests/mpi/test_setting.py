"""The head of a training log says where the ranks are, alike on all of them."""

import os
import re

import pytest
import torch
from mpi4py import MPI

from hpcddl.cluster.setting import describe_setting
from hpcddl.cluster.world import World


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("node_size", [1, 2])
def test_nodes_and_ranks(world: World, node_size: int) -> None:
    """A last node with fewer ranks is told apart."""
    faked = World.create(node_size=node_size)
    libraries, places = describe_setting(faked)
    full, rest = divmod(world.size, node_size)
    ranks = f"{rest} to {node_size}" if full and rest else f"{min(world.size, node_size)}"
    assert places.startswith(f"nodes x ranks: {full + bool(rest)} x {ranks}, on ")
    assert f"torch {torch.__version__}" in libraries
    assert len(set(world.comm.allgather((libraries, places)))) == 1


def test_binding(world: World) -> None:
    """Ranks bound to cores of their own are said to be bound, and have fewer."""
    before = os.sched_getaffinity(0)
    if len(before) < world.size:
        pytest.skip("needs a core for each rank")
    own = sorted(before)[world.rank]
    os.sched_setaffinity(0, {own})
    try:
        places = describe_setting(World.create())[1]
    finally:
        os.sched_setaffinity(0, before)
    assert re.search(r"threads \d+, cores 1, bound to \d+ \(rank 0\)$", places)
    assert "not bound" in describe_setting(world)[1]


def test_horovod_is_named_once_it_is_loaded(world: World) -> None:
    import horovod.torch

    assert horovod.torch.mpi_built()
    libraries = describe_setting(world)[0]
    assert re.search(r", Horovod \d+\.\d+\.\d+ \(MPI( and NCCL)?\)$", libraries)
    assert MPI.Get_library_version().split(",")[0].strip("\0 ") in libraries
