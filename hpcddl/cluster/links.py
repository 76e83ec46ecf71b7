"""The network between learners: the one there is, or a slower one emulated on top of it.

Emulated messages are really sent; whoever waits for one then sleeps until the moment at which it
would have arrived. That moment depends on when it was sent and on the link alone, so whatever is
computed meanwhile hides it, as on a real network. What it costs is the usual model: latency plus
bytes over bandwidth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil, inf, log2

import numpy as np
from mpi4py import MPI

Wait = Callable[[], None]


class Gradients:
    """One mean of many gradients, each sent as soon as it is ready; here nothing is added."""

    def ready(self, index: int, nbytes: int) -> None:
        """Gradient `index` is on its way; `nbytes` are what each learner sends for its mean."""

    def arrive(self) -> None:
        """Returns when all have arrived; collective."""


class Network:
    """The network there is: nothing is added to it."""

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


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Link:
    """A learner's connection: what a message waits for, and what a byte costs."""

    latency_seconds: float = 0.0
    bytes_per_second: float = inf


@dataclass
class EmulatedNetwork(Network):
    """Links inside nodes and between them, for learners that share one clock (one machine).

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
        self, network: EmulatedNetwork, comm: MPI.Intracomm, count: int, fusion_bytes: int
    ) -> None:
        self._network, self._comm, self._fusion_bytes = network, comm, fusion_bytes
        self._ready, self._bytes = np.zeros(count), np.zeros(count, np.int64)

    def ready(self, index: int, nbytes: int) -> None:
        self._ready[index], self._bytes[index] = self._network.clock(), nbytes

    def arrive(self) -> None:
        """One after the other, each when the last learner has it and the one before is done."""
        network, latest = self._network, np.empty_like(self._ready)
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
            end += network._average_seconds(self._comm, nbytes)
        network._wait_until(end + network._round_delay(self._comm))


_TIMES = 1  # tag of the messages that say when a message arrives; weights have 0
