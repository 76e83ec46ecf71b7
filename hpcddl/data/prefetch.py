"""One thread that gathers the next batches while the current one is used.

A consumer that finds its batch unfinished gathers the next one instead of sleeping: a starved
loader then has two cores, and no wake-up to pay for. Worker processes would cost four to five times
the CPU and were slower than no prefetching at all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor


class Source(Protocol):
    """What can be prefetched: whole batches, gathered into buffers that are used again."""

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised host tensors for `batch` samples."""
        ...

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills the tensors with the samples `indices`."""
        ...


class Prefetcher:
    """Batches on `device`, gathered by one thread up to `depth` ahead, in the order asked for.

    `depth` 0 gathers in the caller's thread. A batch is valid until the next one is asked for: its
    tensors belong to a ring of depth + 1 buffers and are overwritten after that. On the CPU the
    ring's own tensors are handed out; for CUDA the ring is pinned and copied on its own stream.
    """

    def __init__(self, dataset: Source, device: torch.device | str, depth: int = 3) -> None:
        if depth < 0:
            raise ValueError(f"depth is {depth}, expected at least 0")
        self._dataset = dataset
        self._device = torch.device(device)
        cuda = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if cuda else None
        self._slots = [_Slot(dataset, self._device, self._stream) for _ in range(depth + 1)]
        self._busy = threading.Lock()

    def batches(
        self, index_arrays: Iterable[NDArray]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """(features, labels) for each array of indices, in their order.

        The iterable is consumed as slots become free, mostly in the thread. To resume in the middle
        of an epoch, give the remaining arrays. An exception met while gathering is raised here,
        with its traceback, in the place of the batch that failed. Closing the iterator, or dropping
        it, joins the thread, and closes the iterable if that is a generator (it may read ahead).

        Raises RuntimeError while another iterator of this object is in use: they share the buffers.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "another iterator of this Prefetcher is still in use; close it first"
            )
        try:
            if len(self._slots) == 1:
                yield from self._inline(index_arrays)
            else:
                yield from self._threaded(index_arrays)
        finally:
            if isinstance(index_arrays, Generator):
                index_arrays.close()
            self._busy.release()

    def _inline(self, index_arrays: Iterable[NDArray]) -> Iterator[tuple[Tensor, Tensor]]:
        slot = self._slots[0]
        for indices in index_arrays:
            slot.fill(indices)
            try:
                yield slot.hand_out()
            finally:
                slot.take_back()

    def _threaded(self, index_arrays: Iterable[NDArray]) -> Iterator[tuple[Tensor, Tensor]]:
        ring = _Ring(self._slots, index_arrays)
        thread = threading.Thread(target=ring.work, name="prefetch", daemon=True)
        thread.start()
        try:
            number = 0
            while (slot := ring.next(number)) is not None:
                try:
                    yield slot.hand_out()
                finally:
                    slot.take_back()
                ring.release(slot)
                number += 1
        finally:
            ring.stop()
            thread.join()


@dataclass(frozen=True)
class _Job:
    number: int
    slot: _Slot
    indices: NDArray


class _Ring:
    """Batches by number: claimed in order by whoever is free, finished in any, used in order."""

    def __init__(self, slots: list[_Slot], index_arrays: Iterable[NDArray]) -> None:
        self._arrays = iter(index_arrays)
        self._free = deque(slots)
        self._claimed = 0  # batches claimed so far, so also the next one's number
        self._done: dict[int, _Slot | BaseException] = {}
        self._over = False  # nothing more will be claimed
        self._changed = threading.Condition()

    def work(self) -> None:
        """The thread: gathers whatever there is a free slot for, until all is claimed."""
        while True:
            with self._changed:
                while (job := self._claim()) is None and not self._over:
                    self._changed.wait()
            if job is None:
                return
            self._gather(job)

    def next(self, number: int) -> _Slot | None:
        """The consumer: batch `number`, or None after the last; raises what gathering it raised."""
        while True:
            with self._changed:
                job = None
                while not self._settled(number) and (job := self._claim()) is None:
                    if not self._settled(number):
                        self._changed.wait()
                if job is None:
                    item = self._done.pop(number, None)
                    if isinstance(item, BaseException):
                        raise item
                    return item
            self._gather(job)

    def release(self, slot: _Slot) -> None:
        """The consumer is done with a batch: its slot may be filled again."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def stop(self) -> None:
        """Lets the thread end after the batch it is at."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def _settled(self, number: int) -> bool:
        return number in self._done or (self._over and number >= self._claimed)

    def _claim(self) -> _Job | None:
        """The next batch and a slot for it, or None; under the lock."""
        if self._over or not self._free:
            return None
        try:
            indices = next(self._arrays)
        except StopIteration:
            self._over = True
            return None
        except BaseException as error:
            self._over = True
            self._done[self._claimed] = error
            return None
        self._claimed += 1
        return _Job(self._claimed - 1, self._free.popleft(), indices)

    def _gather(self, job: _Job) -> None:
        item: _Slot | BaseException = job.slot
        try:
            job.slot.fill(job.indices)
        except BaseException as error:
            # Also what is no Exception: a consumer that waits for a dead thread waits for ever.
            item = error
        with self._changed:
            self._over |= item is not job.slot
            self._done[job.number] = item
            self._changed.notify()


class _Slot:
    """One buffer of the ring: host tensors; on CUDA also their copies, and events between."""

    def __init__(
        self, dataset: Source, device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self._dataset = dataset
        self._device = device
        self._stream = stream
        self._size = 0
        self._host: tuple[Tensor, Tensor]
        self._copies: tuple[Tensor, Tensor]
        self._batch: tuple[Tensor, Tensor]
        if stream is not None:
            self._copied = torch.cuda.Event()
            self._used = torch.cuda.Event()

    def fill(self, indices: NDArray) -> None:
        count = len(indices)
        if self._stream is not None:
            self._copied.synchronize()  # the last copy may still read the host tensors
        if count > self._size:
            self._grow(count)
        # Slicing costs as much as gathering the labels, and all batches but the last are whole.
        whole = count == self._size
        features, labels = self._host if whole else (part[:count] for part in self._host)
        self._dataset.gather(indices, features, labels)
        if self._stream is None:
            self._batch = features, labels
            return
        copies = self._copies
        self._batch = copies if whole else (copies[0][:count], copies[1][:count])
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used)
            self._batch[0].copy_(features, non_blocking=True)
            self._batch[1].copy_(labels, non_blocking=True)
            self._copied.record(self._stream)

    def hand_out(self) -> tuple[Tensor, Tensor]:
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
        return self._batch

    def take_back(self) -> None:
        if self._stream is not None:
            self._used.record(torch.cuda.current_stream(self._device))

    def _grow(self, count: int) -> None:
        pinned = self._stream is not None
        self._host = self._dataset.buffers(count, pin_memory=pinned)
        if self._stream is not None:
            # Kernels in flight may still read the old copies, which are about to be freed.
            self._used.synchronize()
            features, labels = self._host
            self._copies = (
                torch.empty_like(features, device=self._device),
                torch.empty_like(labels, device=self._device),
            )
            # Allocated on the caller's stream, written on ours.
            torch.cuda.current_stream(self._device).synchronize()
        self._size = count
