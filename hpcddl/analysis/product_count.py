"""Shows the progress of an iteration of unknown length on standard error."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from hpcddl.common.progress import LINE_SECONDS


class ProductCount:
    """Counts Hessian-vector products; a bar on a terminal, now and then a line elsewhere.

    As a context manager it clears its bar. `shown` false keeps it silent.
    """

    def __init__(self, name: str, shown: bool) -> None:
        self.done = 0
        self._name = name
        self._shown = shown
        self._began = self._said = time.monotonic()
        on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(desc=name, unit=" products") if on_terminal else None

    def __enter__(self) -> ProductCount:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, what: str) -> None:
        """Counts one more product, which is needed for `what`."""
        self.done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(what, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self._shown and now - self._said > LINE_SECONDS:
            self._said = now
            rate = self.done / (now - self._began)
            print(
                f"{self._name}: {what}, {self.done} Hessian-vector products, {rate:.2g} per second",
                file=sys.stderr,
                flush=True,
            )
