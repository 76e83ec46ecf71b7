"""Progress on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LINE_SECONDS = 15.0


class Progress:
    """Counts up to `total` things of a `unit`; says how fast, and how many seconds remain.

    `shown` false keeps it silent: one rank of a job speaks for all. As a context manager it clears
    its bar.
    """

    def __init__(self, total: int, what: str, unit: str = "utt", shown: bool = True) -> None:
        self._total = total
        self._what = what
        self._unit = unit
        self._shown = shown
        self._count = 0
        self._began = self._said = time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(desc=what, total=total, unit=unit, unit_scale=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._count += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if self._shown and now - self._said > LINE_SECONDS:
            self._said = now
            rate = self._count / (now - self._began)
            left = max(0, self._total - self._count) / max(rate, 1e-9)
            print(
                f"{self._what}: {self._count} of {self._total} {self._unit}, "
                f"{rate:.0f} per second, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def progress(items: Iterable[Item], total: int, what: str, unit: str = "utt") -> Iterator[Item]:
    """Passes `items` on and reports how many of `total` went by."""
    with Progress(total, what, unit) as counter:
        for item in items:
            yield item
            counter.add()
