"""Weights to and from neighbours, overlapping forward and backward (paper A eq. 2).

One exchange moves w_j(t) out and the neighbours' w_k(t) in, then adds what the mixing changes,

    sum_k A_jk w_k - w_j = sum_{k != j} A_jk (w_k - w_j),

to weights that the optimizer has stepped meanwhile. In this form learners that already agree stay
bit for bit equal. What it costs in passes over the weights: one copy into the send buffer, the
transfer, and per neighbour one read of both buffers and one update of the weights.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from mpi4py import MPI
from torch import Tensor

from hpcddl.cluster.links import Wait, links_of
from hpcddl.cluster.mpi_library import cuda_aware
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.messages import gather_shares, pieces
from hpcddl.communication.topology import Matrix

BLOCK = 1 << 18  # elements mixed at a time: the difference of two blocks stays in the cache


class NeighbourExchange:
    """One exchange in flight at a time, on a communicator of its own.

    On the CPU the messages are posted in `start` and completed in `finish`; a helper thread would
    only take the cores from the computation. On a GPU a thread waits for the side stream's copy
    into pinned host memory, moves the messages and copies them back, all under forward and
    backward; where MPI is CUDA-aware it hands the device buffers to MPI instead.
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        weights: FlatWeights,
        group: MPI.Intracomm | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Makes the buffers' plan; collective.

        Args:
            comm: the learners that exchange.
            group: learners who hold the same weights, each in a `comm` of its own. Each exchanges
                an equal share of the weights with its counterparts and gathers what the others got.
            dtype: what the weights travel as; None: as they are. Both sides of a difference are
                rounded alike, so the consensus keeps its full precision.
        """
        self.comm = comm.Dup()
        self.group = group.Dup() if group is not None and group.size > 1 else None
        self.weights = weights
        self._links = links_of(self.comm)
        self._arrived: Wait | None = None
        self.bytes_sent = 0  # by the last exchange
        # Of the last exchange: into the send buffer; from posting until all had arrived; mixing.
        self.copy_seconds = self.transfer_seconds = self.mix_seconds = 0.0
        self._on_gpu = weights.device.type == "cuda"
        self._staged = self._on_gpu and not cuda_aware()
        self._own = weights.empty(dtype)
        self._received: list[Tensor] = []
        self._host: list[Tensor] = []  # pinned: the sent vector, then the received ones
        self._mixing: list[tuple[int, float]] = []  # (neighbour k, A_jk), k ascending
        self._requests: list[MPI.Request] = []
        self._uniform = False
        self._posted = 0.0
        parts, part = (self.group.size, self.group.rank) if self.group else (1, 0)
        self._ends = [weights.size * i // parts for i in range(parts + 1)]
        self._share = slice(*self._ends[part : part + 2])
        if self._on_gpu:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="exchange")
            self._stream = torch.cuda.Stream(weights.device)
            self._moved: Future[None] | None = None

    def __del__(self) -> None:
        # A delayed rule ends with messages under way, and MPI writes into buffers till they arrive.
        if not MPI.Is_finalized():
            self.finish()

    @property
    def route(self) -> str:
        """How the weights travel, for the log."""
        way = "host memory"
        if self._on_gpu:
            way = "pinned host memory on a side stream" if self._staged else "CUDA-aware MPI"
        if self._own.dtype == self.weights.dtype:
            return way
        return f"{way} as {str(self._own.dtype).removeprefix('torch.')}"

    def start(self, matrix: Matrix) -> None:
        """Takes a copy of the weights w_j(t) and starts sending it along A (n, n)."""
        began = time.perf_counter()
        self.bytes_sent = 0
        rank, n = self.comm.rank, self.comm.size
        # Where all average with all, an allreduce moves 2 d instead of (n - 1) d.
        self._uniform = (
            n > 2
            and bool((matrix == matrix[0, 0]).all())
            and self._own.dtype == self.weights.dtype  # MPI cannot add 16-bit numbers
        )
        self._mixing = [
            (k, float(matrix[rank, k])) for k in range(n) if k != rank and matrix[rank, k]
        ]
        targets = [k for k in range(n) if k != rank and matrix[k, rank]]
        if not self._mixing:  # then its column is empty too: A is doubly stochastic
            return
        self._reserve()
        self.weights.read(self._own)
        self.copy_seconds = time.perf_counter() - began
        if self._on_gpu:
            ready = torch.cuda.Event()
            ready.record()
            self._moved = self._thread.submit(self._move_from_gpu, ready, targets)
        else:
            self._post(self._own, self._received, targets)

    def finish(self) -> None:
        """Waits until all that was started has arrived. The weights are not touched."""
        if not self._mixing:
            return
        if self._on_gpu:
            if self._moved is not None:
                self._moved.result()
                torch.cuda.current_stream().wait_stream(self._stream)
        else:
            self._complete(self._received)

    @torch.no_grad()
    def mix(self) -> None:
        """weights += sum_{k != j} A_jk (w_k(t) - w_j(t)), from the exchange's own buffers."""
        if not self._mixing:
            return
        began = time.perf_counter()
        sources = [(self._received[i], a) for i, (_, a) in enumerate(self._sources())]
        if self._on_gpu:
            for source, a in sources:
                change = source.to(self.weights.dtype) - self._own
                torch._foreach_add_(self.weights.parameters, self.weights.views(change), alpha=a)
        else:
            self._mix_in_blocks(sources)
        self.mix_seconds = time.perf_counter() - began

    def state_dict(self) -> dict[str, Any]:
        """What has arrived and is not yet mixed; waits for it."""
        self.finish()
        count = len(self._sources())
        return {
            "mixing": self._mixing,
            "uniform": self._uniform,
            "own": self._own if self._mixing else None,
            "received": self._received[:count],
            "bytes_sent": self.bytes_sent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` of the same learner and layout returned."""
        self._mixing, self._uniform = state["mixing"], state["uniform"]
        self.bytes_sent = state["bytes_sent"]
        if self._mixing:
            self._reserve()
            self._own.copy_(state["own"])
            for buffer, value in zip(self._received, state["received"], strict=False):
                buffer.copy_(value)

    def _sources(self) -> list[tuple[int, float]]:
        """Lists the learner that each received vector comes from, and its weight in the mixture."""
        return [(-1, 1.0)] if self._uniform else self._mixing

    def _mix_in_blocks(self, sources: list[tuple[Tensor, float]]) -> None:
        """On the CPU memory is what costs: each block's difference never leaves the cache."""
        difference = torch.empty(BLOCK, dtype=self.weights.dtype)
        rounded = self._own.dtype != self.weights.dtype
        offset = 0
        for parameter in self.weights.parameters:
            flat = parameter.view(-1) if parameter.is_contiguous() else parameter.reshape(-1)
            for begin in range(0, flat.numel(), BLOCK):
                block = flat[begin : begin + BLOCK]
                here = slice(offset + begin, offset + begin + block.numel())
                out = difference[: block.numel()]
                for source, a in sources:
                    if rounded:  # a difference of 16-bit numbers is not one
                        out.copy_(source[here]).sub_(self._own[here])
                    else:
                        torch.sub(source[here], self._own[here], out=out)
                    block.add_(out, alpha=a)
            if not parameter.is_contiguous():
                parameter.copy_(flat.view(parameter.shape))
            offset += flat.numel()

    def _reserve(self) -> None:
        count = len(self._sources())
        while len(self._received) < count:
            self._received.append(torch.empty_like(self._own))
        if self._staged:
            while len(self._host) < count + 1:
                self._host.append(
                    torch.empty(self.weights.size, dtype=self._own.dtype, pin_memory=True)
                )

    def _post(self, own: Tensor, received: list[Tensor], targets: list[int]) -> None:
        self._posted = time.perf_counter()
        mine = own[self._share]
        if self._uniform:
            self._arrived = self._links.average(
                self.comm, ring_allreduce_bytes(mine, self.comm.size)
            )
            parts = zip(pieces(mine), pieces(received[0][self._share]), strict=True)
            self._requests = [self.comm.Iallreduce(part, out, MPI.SUM) for part, out in parts]
            self.bytes_sent += ring_allreduce_bytes(mine, self.comm.size)
            return
        sources = [k for k, _ in self._mixing]
        self._arrived = self._links.exchange(self.comm, mine.nbytes, targets, sources)
        self._requests = [
            self.comm.Irecv(part, k)
            for i, k in enumerate(sources)
            for part in pieces(_raw(received[i][self._share]))
        ]
        self._requests += [self.comm.Isend(part, k) for k in targets for part in pieces(_raw(mine))]
        self.bytes_sent += len(targets) * mine.nbytes

    def _complete(self, received: list[Tensor]) -> None:
        if self._arrived is None:
            return  # nothing since the last time
        MPI.Request.Waitall(self._requests)
        self._arrived()
        self._arrived = None
        for buffer in received[: len(self._sources())]:
            if self._uniform:
                buffer[self._share].div_(self.comm.size)
            self._gather(buffer)
        self.transfer_seconds = time.perf_counter() - self._posted

    def _gather(self, buffer: Tensor) -> None:
        """The group's shares of `buffer` (d,) come together on each of its learners."""
        if self.group is None:
            return
        lengths = [(end - begin) * buffer.itemsize for begin, end in pairwise(self._ends)]
        sent = (self.group.size - 1) * lengths[self.group.rank]
        arrived = self._links.average(self.group, sent)
        gather_shares(self.group, _raw(buffer), lengths)
        arrived()
        self.bytes_sent += sent

    def _move_from_gpu(self, ready: torch.cuda.Event, targets: list[int]) -> None:
        """In the helper thread: device -> host, MPI, host -> device, on the side stream."""
        count = len(self._sources())
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            if not self._staged:
                self._stream.synchronize()  # MPI reads the buffer outside any stream's order
                self._post(self._own, self._received, targets)
                self._complete(self._received)
            else:
                own, *received = self._host[: count + 1]
                own.copy_(self._own, non_blocking=True)
                self._stream.synchronize()
                self._post(own, received, targets)
                self._complete(received)
                for device, host in zip(self._received, received, strict=False):
                    device.copy_(host, non_blocking=True)


def _raw(vector: Tensor) -> Tensor:
    """Views the same memory as bytes, because MPI has no bfloat16."""
    return vector.view(torch.uint8)


def ring_allreduce_bytes(vector: Tensor, n: int) -> int:
    """What one learner sends in a ring allreduce: 2 (n-1)/n of the vector (Patarasu & Yuan 2009).

    MPI and Horovod do not say what they send; this is the least any algorithm can.
    """
    return round(2 * (n - 1) / n * vector.nbytes)
