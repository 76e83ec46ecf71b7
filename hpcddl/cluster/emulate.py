"""Which links a recipe wants emulated: `links.emulate`."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Annotated

from mpi4py import MPI
from pydantic import Field, PositiveFloat, PositiveInt

from hpcddl.cluster.links import EmulatedLinks, Link, put_links, split
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Strict

Seconds = Annotated[float, Field(ge=0)]


class LinkOptions(Strict):
    """A learner's connection; without options it costs nothing beyond the real one."""

    latency_seconds: Seconds = 0.0
    bytes_per_second: PositiveFloat | None = None

    def link(self) -> Link:
        return Link(self.latency_seconds, self.bytes_per_second or inf)


class Emulation(Strict):
    """Links slower than the machine's own, and learners slower than it."""

    node_size: PositiveInt | None = None  # consecutive learners of a node; None: the launcher's
    within: LinkOptions = LinkOptions()  # inside a node
    between: LinkOptions = LinkOptions()
    round_delay_seconds: Seconds = 0.0  # of every average over all learners
    # learner -> how many times as long it computes
    slow: dict[int, Annotated[float, Field(ge=1)]] = Field(default_factory=dict)


class LinksSection(Strict):
    """The real links, unless others are emulated."""

    emulate: Emulation | None = None


def emulated(world: World, options: Emulation) -> World:
    """The same learners in a world with those links, and with their nodes. Collective.

    Raises:
        UserError: learners on several machines, whose clocks differ; `slow` names a learner
            that does not exist.
    """
    here = world.comm.Split_type(MPI.COMM_TYPE_SHARED)
    least = world.comm.allreduce(here.size, MPI.MIN)
    here.Free()
    if least < world.size:
        raise UserError("links.emulate: needs all learners on one machine, whose clock they share")
    for learner in options.slow:
        if not 0 <= learner < world.size:
            raise UserError(f"links.emulate.slow={learner}: must be 0 to {world.size - 1}")
    if options.node_size is None:
        node = world.node.bcast(world.rank)
    else:
        node = world.rank // options.node_size
    comm = world.comm.Dup()  # the world given keeps its real links
    links = EmulatedLinks(
        comm,
        comm.allgather(node),
        options.within.link(),
        options.between.link(),
        options.round_delay_seconds,
        options.slow.get(world.rank, 1.0),
    )
    put_links(comm, links)
    return replace(world, comm=comm, node=split(comm, node))
