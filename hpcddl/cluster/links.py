"""The links between learners: the real wires, or slower ones emulated on top of them.

Links are a property of a communicator: `links_of` finds them, its duplicates have them too.
Emulated messages are really sent; whoever waits for one then sleeps until the moment at which it
would have arrived. That moment depends on when it was sent and on the link alone, so whatever is
computed meanwhile hides it, as on real links. What it costs is the usual model: latency plus
bytes over bandwidth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import ceil, inf, log2
from typing import Any

import numpy as np
from mpi4py import MPI

Wait = Callable[[], None]


class Gradients:
    """One mean of many gradients, each sent as soon as it is ready; here nothing is added."""

    def ready(self, index: int, nbytes: int) -> None:
        """Gradient `index` is on its way; `nbytes` are what each learner sends for its mean."""

    def arrive(self) -> None:
        """Returns when all have arrived; collective."""


class Links:
    """The real links: they add no delay."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around forward and backward."""
        yield

    def exchange(
        self, comm: MPI.Intracomm, nbytes: int, targets: Sequence[int], sources: Sequence[int]
    ) -> Wait:
        """Each of `targets` of `comm` is sent `nbytes` now; the result waits for `sources`."""
        return _nothing

    def average(self, comm: MPI.Intracomm, bytes_sent: int) -> Wait:
        """An average over `comm` starts now, for which each sends `bytes_sent`; collective."""
        return _nothing

    def gradients(self, comm: MPI.Intracomm, count: int, fusion_bytes: int) -> Gradients:
        """Means over `comm` of `count` gradients, small ones fused up to `fusion_bytes`."""
        return Gradients()


def links_of(comm: MPI.Intracomm) -> Links:
    """Finds the links between the learners of `comm`: the real ones, unless others were put on."""
    links: Any = comm.Get_attr(_keyval())
    return _REAL if links is None else links


def put_links(comm: MPI.Intracomm, links: Links) -> None:
    """Gives `comm` these links; what is duplicated or `split` from it later has them too.

    All who use `comm` are given them: it should be a duplicate of one's own.
    """
    comm.Set_attr(_keyval(), links)


def split(comm: MPI.Intracomm, color: int, key: int = 0) -> MPI.Intracomm:
    """Makes this learner's part of `comm`, as MPI's split, with the links of the whole. Collective.

    MPI's own split drops them.
    """
    part: Any = comm.Split(color, key)  # mpi4py's types call it a plain communicator
    put_links(part, links_of(comm))
    return part


@cache  # not when this is imported: MPI may not have started by then
def _keyval() -> int:
    """The key of MPI's that links are kept under; a duplicate has the same object."""
    return MPI.Comm.Create_keyval(copy_fn=lambda comm, keyval, links: links)


def _nothing() -> None:
    pass


_REAL = Links()


@dataclass(frozen=True)
class Link:
    """A learner's connection: what a message waits for, and what a byte costs."""

    latency_seconds: float = 0.0
    bytes_per_second: float = inf


@dataclass
class EmulatedLinks(Links):
    """Others inside nodes and between them, for learners that share one clock (one machine).

    Each learner sends one message at a time into a link; an average over n learners takes
    2 ceil(log2 n) latencies and the bytes that each sends (Rabenseifner's allreduce, 2 (n-1)/n of
    the vector), at the pace of its slowest link, and starts when the last learner comes to it.

    Args:
        node: for each rank of `comm` the number of its node.
        round_delay_seconds: added to every average over all learners (paper B fig. 19).
        slowness: of this learner: its forward and backward take so many times as long.
    """

    comm: MPI.Intracomm
    node: Sequence[int]
    within: Link
    between: Link
    round_delay_seconds: float = 0.0
    slowness: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _free: dict[Link, float] = field(
        default_factory=dict
    )  # when each link has sent all it was given
    _computed_seconds: float = 0.0  # by the last forward and backward, unslowed

    @contextmanager
    def computing(self) -> Iterator[None]:
        # Before, not after: a slow learner's gradients are late too.
        self.sleep((self.slowness - 1) * self._computed_seconds)
        began = self.clock()
        yield
        self._computed_seconds = self.clock() - began

    def exchange(
        self, comm: MPI.Intracomm, nbytes: int, targets: Sequence[int], sources: Sequence[int]
    ) -> Wait:
        arrivals = np.empty(len(sources))
        departures = np.array([self._send(self._link(comm, [k]), nbytes) for k in targets])
        requests = [comm.Irecv(arrivals[i : i + 1], k, _TIMES) for i, k in enumerate(sources)]
        requests += [comm.Isend(departures[i : i + 1], k, _TIMES) for i, k in enumerate(targets)]

        def wait() -> None:
            MPI.Request.Waitall(requests)
            self._wait_until(arrivals.max(initial=0.0))

        return wait

    def average(self, comm: MPI.Intracomm, bytes_sent: int) -> Wait:
        began, last = np.array([self.clock()]), np.empty(1)
        request = comm.Iallreduce(began, last, MPI.MAX)

        def wait() -> None:
            request.Wait()
            end = last[0] + self._average_seconds(comm, bytes_sent) + self._round_delay(comm)
            self._wait_until(end)

        return wait

    def gradients(self, comm: MPI.Intracomm, count: int, fusion_bytes: int) -> Gradients:
        return _EmulatedGradients(self, comm, count, fusion_bytes)

    def _send(self, link: Link, nbytes: int) -> float:
        """When a message given to `link` now arrives."""
        begins = max(self.clock(), self._free.get(link, 0.0))
        self._free[link] = begins + nbytes / link.bytes_per_second
        return self._free[link] + link.latency_seconds

    def _average_seconds(self, comm: MPI.Intracomm, bytes_sent: int) -> float:
        if comm.size == 1:
            return 0.0
        link = self._link(comm, range(comm.size))
        steps = 2 * ceil(log2(comm.size))
        return steps * link.latency_seconds + bytes_sent / link.bytes_per_second

    def _round_delay(self, comm: MPI.Intracomm) -> float:
        return self.round_delay_seconds if comm.size == self.comm.size > 1 else 0.0

    def _link(self, comm: MPI.Intracomm, peers: Sequence[int]) -> Link:
        """The slowest between this learner and those ranks of `comm`."""
        ranks = MPI.Group.Translate_ranks(comm.group, list(peers), self.comm.group)
        here = self.node[self.comm.rank]
        return self.within if all(self.node[k] == here for k in ranks) else self.between

    def _wait_until(self, moment: float) -> None:
        self.sleep(max(0.0, moment - self.clock()))


class _EmulatedGradients(Gradients):
    def __init__(
        self, links: EmulatedLinks, comm: MPI.Intracomm, count: int, fusion_bytes: int
    ) -> None:
        self._links, self._comm, self._fusion_bytes = links, comm, fusion_bytes
        self._ready, self._bytes = np.zeros(count), np.zeros(count, np.int64)

    def ready(self, index: int, nbytes: int) -> None:
        self._ready[index], self._bytes[index] = self._links.clock(), nbytes

    def arrive(self) -> None:
        """One after the other, each when the last learner has it and the one before is done."""
        links, latest = self._links, np.empty_like(self._ready)
        self._comm.Allreduce(self._ready, latest, MPI.MAX)
        order = list(np.argsort(latest, kind="stable"))
        end = 0.0
        while order:
            first = order.pop(0)
            end, nbytes = max(end, latest[first]), int(self._bytes[first])
            while order and latest[order[0]] <= end:
                if nbytes + self._bytes[order[0]] > self._fusion_bytes:
                    break
                nbytes += int(self._bytes[order.pop(0)])
            end += links._average_seconds(self._comm, nbytes)
        links._wait_until(end + links._round_delay(self._comm))


_TIMES = 1  # tag of the messages that say when a message arrives; weights have 0
