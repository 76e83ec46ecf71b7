"""Partitions of the learners: blocks, and the learners at the same position in every block."""

from mpi4py import MPI

from hpcddl.cluster.links import split
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError


def block_of(world: World, size: int | None) -> MPI.Intracomm:
    """The learners of this one's block: of its node, or `size` consecutive ones. Collective."""
    if size is None:
        return world.node
    return split(world.comm, world.rank // size)


def counterparts(world: World, block: MPI.Intracomm) -> MPI.Intracomm:
    """The learners of this one's place in their blocks, by block. Collective.

    Raises:
        UserError: blocks of unequal size, on all learners alike.
    """
    sizes = sorted(set(world.comm.allgather(block.size)))
    if len(sizes) > 1:
        raise UserError(
            "strategy.super_learners: nodes must hold equally many learners, else their average is "
            f"not the learners'; here are some of {sizes[0]} and some of {sizes[-1]}"
        )
    # By the rank of each block's first: the same order at every place.
    return split(world.comm, block.rank, block.bcast(world.rank))
