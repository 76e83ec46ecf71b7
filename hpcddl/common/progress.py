"""Shows progress on standard error: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import threading
import time

from tqdm import tqdm

LINE_SECONDS = 15.0


class Progress:
    """Counts up to `total` things from any thread; says how fast, and how many seconds remain.

    Numbers are shown in `unit`s of `scale` things each. `shown` false keeps it silent: one rank of
    a job speaks for all. As a context manager it clears its bar.
    """

    def __init__(
        self, total: int, what: str, unit: str = "utt", *, scale: int = 1, shown: bool = True
    ) -> None:
        self.done = 0
        self._total = total
        self._what = what
        self._unit = unit
        self._scale = scale
        self._shown = shown
        self._began = self._said = time.monotonic()
        self._lock = threading.Lock()
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(desc=what, total=total / scale, unit=unit, unit_scale=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int = 1) -> None:
        """Counts so many more things as done."""
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(count / self._scale)
            elif self._shown and time.monotonic() - self._said > LINE_SECONDS:
                self._said = time.monotonic()
                print(self._line(), file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return self.done / self._scale / self.seconds

    def _line(self) -> str:
        digits = 0 if self._scale == 1 else 2
        rate = f"{self.rate:.0f}" if self.rate >= 10 else f"{self.rate:.2g}"
        left = max(0, self._total - self.done) / self._scale / max(self.rate, 1e-9)
        return (
            f"{self._what}: {self.done / self._scale:.{digits}f} of "
            f"{self._total / self._scale:.{digits}f} {self._unit}, "
            f"{rate} per second, {left:.0f} s left"
        )
