"""Cuts an utterance into windows of T frames, one every `hop` frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def window_count(frames: int, window: int, hop: int) -> int:
    """Windows that lie wholly inside `frames`."""
    return 0 if frames < window else (frames - window) // hop + 1


def remainder(frames: int, window: int, hop: int) -> int:
    """Frames at the end that no window holds."""
    count = window_count(frames, window, hop)
    return frames if count == 0 else frames - (count - 1) * hop - window


def window_starts(frames: int, window: int, hop: int) -> NDArray[np.int32]:
    """(n,) first frame of each window."""
    return np.arange(window_count(frames, window, hop), dtype=np.int32) * np.int32(hop)


def cut(array: NDArray, starts: NDArray[np.int32], window: int) -> NDArray:
    """(n, T, ...) the windows of `array` that begin at `starts`."""
    return array[starts[:, None] + np.arange(window, dtype=np.int32)]
