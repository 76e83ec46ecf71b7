"""Says every few seconds how far a long reading or copying of bytes is, and how fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_REPORT_SECONDS = 5.0


class ByteProgress:
    """Counts bytes from any thread and calls `say` with one line, now and then."""

    def __init__(self, doing: str, size: int, say: Callable[[str], None]) -> None:
        self._doing, self._size, self._say = doing, size, say
        self.done = 0
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Counts `count` bytes more."""
        with self._lock:
            self.done += count
            if time.monotonic() - self._told < _REPORT_SECONDS:
                return
            self._told = time.monotonic()
            line = f"{self._doing}: {self.done / 1e9:.1f} of {self._size / 1e9:.1f} GB, {self}"
        self._say(line)

    def __str__(self) -> str:
        """The rate so far."""
        return f"{self.done / 1e9 / self.seconds:.2f} GB/s"

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return max(time.monotonic() - self._began, 1e-9)
