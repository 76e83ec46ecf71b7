"""Cuts an utterance into windows of T frames, one every `hop` frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def window_counts(frames: NDArray, window: int, hop: NDArray | int) -> NDArray[np.int64]:
    """(U,) windows that lie wholly inside each of (U,) `frames`."""
    return np.where(frames < window, 0, (frames - window) // hop + 1).astype(np.int64)


def remainders(frames: NDArray, window: int, hop: NDArray | int) -> NDArray[np.int64]:
    """(U,) frames at the end of each utterance that no window holds."""
    count = window_counts(frames, window, hop)
    return np.where(count == 0, frames, frames - (count - 1) * hop - window).astype(np.int64)


def cut(array: NDArray, window: int, hop: int) -> NDArray:
    """(n, T, ...) the windows of `array`; a view of it where they do not overlap."""
    count = max(0, (len(array) - window) // hop + 1)
    if hop == window:
        return array[: count * window].reshape(count, window, *array.shape[1:])
    starts = np.arange(count, dtype=np.int32) * np.int32(hop)
    return array[starts[:, None] + np.arange(window, dtype=np.int32)]
