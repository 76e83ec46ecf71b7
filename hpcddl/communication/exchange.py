"""Weights to and from neighbours, overlapping forward and backward (paper A eq. 2).

One exchange moves w_j(t) out and the neighbours' w_k(t) in, then adds what the mixing changes,

    sum_k A_jk w_k - w_j = sum_{k != j} A_jk (w_k - w_j),

to weights that the optimizer has stepped meanwhile. In this form learners that already agree stay
bit for bit equal. What it costs in passes over the weights: one copy into the send buffer, the
transfer, and per neighbour one read of both buffers and one update of the weights.
"""

import ctypes
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from mpi4py import MPI
from torch import Tensor

from hpcddl.communication.topology import Matrix
from hpcddl.flat import FlatWeights

BLOCK = 1 << 16  # elements mixed at a time: the difference of two blocks stays in the cache


class NeighbourExchange:
    """One exchange in flight at a time, on a communicator of its own.

    On the CPU the messages are posted in `start` and completed in `finish`; a helper thread would
    only take the cores from the computation. On a GPU a thread waits for the side stream's copy
    into pinned host memory, moves the messages and copies them back, all under forward and
    backward; where MPI is CUDA-aware it hands the device buffers to MPI instead.
    """

    def __init__(self, comm: MPI.Intracomm, weights: FlatWeights) -> None:
        self.comm = comm.Dup()
        self.weights = weights
        self.bytes_sent = 0
        # Of the last exchange: into the send buffer; from posting until all had arrived; mixing.
        self.copy_seconds = self.transfer_seconds = self.mix_seconds = 0.0
        self._on_gpu = weights.device.type == "cuda"
        self._staged = self._on_gpu and not cuda_aware()
        self._own = weights.empty()
        self._received: list[Tensor] = []
        self._host: list[Tensor] = []  # pinned: the sent vector, then the received ones
        self._mixing: list[tuple[int, float]] = []  # (neighbour k, A_jk), k ascending
        self._requests: list[MPI.Request] = []
        self._uniform = False
        self._posted = 0.0
        if self._on_gpu:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="exchange")
            self._stream = torch.cuda.Stream(weights.device)
            self._moved: Future[None] | None = None

    @property
    def route(self) -> str:
        """How the weights travel, for the log."""
        if not self._on_gpu:
            return "host memory"
        return "pinned host memory on a side stream" if self._staged else "CUDA-aware MPI"

    def start(self, matrix: Matrix) -> None:
        """Takes a copy of the weights w_j(t) and starts sending it along A (n, n)."""
        began = time.perf_counter()
        rank, n = self.comm.rank, self.comm.size
        # Where all average with all, an allreduce moves 2 d instead of (n - 1) d.
        self._uniform = n > 2 and bool((matrix == matrix[0, 0]).all())
        self._mixing = [
            (k, float(matrix[rank, k])) for k in range(n) if k != rank and matrix[rank, k]
        ]
        targets = [k for k in range(n) if k != rank and matrix[k, rank]]
        if not self._mixing:  # then its column is empty too: A is doubly stochastic
            return
        self._reserve(1 if self._uniform else len(self._mixing))
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
            assert self._moved is not None
            self._moved.result()
            torch.cuda.current_stream().wait_stream(self._stream)
        else:
            self._wait()

    @torch.no_grad()
    def mix(self) -> None:
        """weights += sum_{k != j} A_jk (w_k(t) - w_j(t)), from the exchange's own buffers."""
        if self._uniform:
            sources = [(self._received[0], 1.0)]  # w_a - w_j
        else:
            sources = [(self._received[i], a) for i, (_, a) in enumerate(self._mixing)]
        if not sources:
            return
        began = time.perf_counter()
        if self._on_gpu:
            for source, a in sources:
                torch._foreach_add_(
                    self.weights.parameters, self.weights.views(source.sub_(self._own)), alpha=a
                )
        else:
            self._mix_in_blocks(sources)
        self.mix_seconds = time.perf_counter() - began

    def _mix_in_blocks(self, sources: list[tuple[Tensor, float]]) -> None:
        """On the CPU memory is what costs: each block's difference never leaves the cache."""
        difference = torch.empty(BLOCK, dtype=self._own.dtype)
        offset = 0
        for parameter in self.weights.parameters:
            flat = parameter.view(-1) if parameter.is_contiguous() else parameter.reshape(-1)
            for begin in range(0, flat.numel(), BLOCK):
                block = flat[begin : begin + BLOCK]
                here = slice(offset + begin, offset + begin + block.numel())
                for source, a in sources:
                    out = difference[: block.numel()]
                    block.add_(torch.sub(source[here], self._own[here], out=out), alpha=a)
            if not parameter.is_contiguous():
                parameter.copy_(flat.view(parameter.shape))
            offset += flat.numel()

    def _reserve(self, count: int) -> None:
        while len(self._received) < count:
            self._received.append(self.weights.empty())
        if self._staged:
            while len(self._host) < count + 1:
                self._host.append(
                    torch.empty(self.weights.size, dtype=self.weights.dtype, pin_memory=True)
                )

    def _post(self, own: Tensor, received: list[Tensor], targets: list[int]) -> None:
        self._posted = time.perf_counter()
        if self._uniform:
            self._requests = [self.comm.Iallreduce(own, received[0], MPI.SUM)]
            self.bytes_sent += ring_allreduce_bytes(own, self.comm.size)
            return
        self._requests = [self.comm.Irecv(received[i], k) for i, (k, _) in enumerate(self._mixing)]
        self._requests += [self.comm.Isend(own, k) for k in targets]
        self.bytes_sent += len(targets) * own.nbytes

    def _wait(self) -> None:
        MPI.Request.Waitall(self._requests)
        self._requests = []
        self.transfer_seconds = time.perf_counter() - self._posted
        if self._uniform and not self._on_gpu:
            self._received[0].div_(self.comm.size)

    def _move_from_gpu(self, ready: torch.cuda.Event, targets: list[int]) -> None:
        """In the helper thread: device -> host, MPI, host -> device, on the side stream."""
        count = 1 if self._uniform else len(self._mixing)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            if not self._staged:
                self._stream.synchronize()  # MPI reads the buffer outside any stream's order
                self._post(self._own, self._received, targets)
                self._wait()
            else:
                own, *received = self._host[: count + 1]
                own.copy_(self._own, non_blocking=True)
                self._stream.synchronize()
                self._post(own, received, targets)
                self._wait()
                for device, host in zip(self._received, received, strict=False):
                    device.copy_(host, non_blocking=True)
            if self._uniform:
                self._received[0].div_(self.comm.size)


def ring_allreduce_bytes(vector: Tensor, n: int) -> int:
    """What one learner sends in a ring allreduce: 2 (n-1)/n of the vector (Patarasu & Yuan 2009).

    MPI and Horovod do not say what they send; this is the least any algorithm can.
    """
    return round(2 * (n - 1) / n * vector.nbytes)


def cuda_aware() -> bool:
    """Whether the loaded MPI says that it takes device buffers (Open MPI's own extension)."""
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/libmpi.so" in line}
    return any(bool(getattr(ctypes.CDLL(path), "MPIX_Query_cuda_support", int)()) for path in paths)
