"""Progress on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LINE_SECONDS = 15.0


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Passes `items` on and reports how many of `total` went by, how fast, and what remains."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, unit="utt")
        return
    began = said = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > LINE_SECONDS:
            said = now
            rate = count / (now - began)
            left = max(0, total - count) / rate
            text = f"{what}: {count} of {total}, {rate:.0f} per second, {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)
