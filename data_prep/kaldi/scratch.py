"""Reuses arrays: new pages of memory cost more time than the arithmetic on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch:
    """A buffer of one type that grows to the largest array asked for."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._buffer: NDArray = np.empty(0, dtype)

    def array(self, rows: int, columns: int) -> NDArray:
        """(rows, columns) of undefined values, which the next call hands out again."""
        size = rows * columns
        if size > len(self._buffer):
            self._buffer = np.empty(size, self._buffer.dtype)
        return self._buffer[:size].reshape(rows, columns)
