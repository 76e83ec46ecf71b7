"""Progress on standard error: one line rewritten on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Passes `items` on and reports how many of `total` went by."""
    terminal = sys.stderr.isatty()
    step = max(1, -(-total // (100 if terminal else 10)))
    for count, item in enumerate(items, 1):
        yield item
        if count % step == 0 or count == total:
            text = f"{what}: {count} of {total}"
            print(text, end="\r" if terminal and count < total else "\n", file=sys.stderr)
