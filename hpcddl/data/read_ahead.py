"""One thread that brings a learner's blocks into the page cache before its shuffle buffer does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from numpy.typing import NDArray

# Linux reads at most one read-ahead window per WILLNEED, 128 KiB where nobody raised it.
_PIECE_BYTES = 128 << 10


def preload(path: Path, regions: Iterable[tuple[int, int]]) -> None:
    """Brings (offset, bytes) of a file into the page cache, with large sequential reads.

    Nothing is copied: twice as fast as reading into a buffer when the disk is asked, and ten times
    when all of it is in memory already. Raises OSError.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        for offset, size in regions:
            for begin in range(offset, offset + size, _PIECE_BYTES):
                piece = min(_PIECE_BYTES, offset + size - begin)
                os.posix_fadvise(file, begin, piece, os.POSIX_FADV_WILLNEED)
            # The advice returns at once: reading the last byte waits for the disk.
            os.pread(file, 1, offset + size - 1)
    finally:
        os.close(file)


class ReadAhead:
    """Loads ranges of samples in order, `ahead` samples and more beyond what has been asked for.

    `load(first, count)` is called in the thread, for at most `ahead` samples at a time. As a
    context manager it joins the thread.
    """

    def __init__(
        self, load: Callable[[int, int], None], ranges: Iterable[tuple[int, int]], ahead: int
    ) -> None:
        self._load = load
        self._ranges = ranges
        self._allowed = self._ahead = ahead
        self._loaded = 0
        self._over = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()

    def wait(self, samples: int) -> None:
        """Returns when the first `samples` are loaded; raises what loading them raised."""
        with self._changed:
            self._allowed = samples + self._ahead
            if self._loaded < self._allowed:
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or self._loaded >= samples)
            if self._error is not None and self._loaded < samples:
                raise self._error

    def _work(self) -> None:
        try:
            for first, count in self._pieces():
                with self._changed:
                    self._changed.wait_for(lambda: self._over or self._loaded < self._allowed)
                    if self._over:
                        return
                self._load(first, count)
                with self._changed:
                    self._loaded += count
                    self._changed.notify_all()
        except BaseException as error:
            # Also what is no Exception: whoever waits for a dead thread waits for ever.
            with self._changed:
                self._error = error
                self._over = True
                self._changed.notify_all()

    def _pieces(self) -> Iterator[tuple[int, int]]:
        for first, count in self._ranges:
            for begin in range(first, first + count, self._ahead):
                yield begin, min(self._ahead, first + count - begin)


def paced(
    batches: Iterator[NDArray], read_ahead: ReadAhead, needed: Iterable[int]
) -> Iterator[NDArray]:
    """The batches, batch i when the first `needed[i]` samples of the thread's ranges are loaded.

    The thread lives from the first batch to the last, or until the iterator is closed.
    """
    with read_ahead:
        for count, batch in zip(needed, batches, strict=False):
            read_ahead.wait(count)
            yield batch
