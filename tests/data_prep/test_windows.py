"""Windows and remainders account for every frame."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.windows import cut, remainder, window_count, window_starts


@given(st.integers(0, 200), st.integers(1, 30), st.data())
def test_every_frame_is_in_a_window_or_in_the_remainder(frames, window, data):
    """For every hop up to the window: the covered frames are all but the last `remainder`."""
    hop = data.draw(st.integers(1, window))
    starts = window_starts(frames, window, hop)
    assert len(starts) == window_count(frames, window, hop)
    assert np.array_equal(starts, np.arange(len(starts)) * hop)
    windows = cut(np.arange(frames), starts, window)
    assert windows.shape == (len(starts), window)
    covered = frames - remainder(frames, window, hop)
    assert np.array_equal(np.unique(windows), np.arange(covered))
    if hop == window:
        assert windows.size == covered
    # One more window would not fit.
    assert len(starts) * hop + window > frames


def test_windows_of_features():
    """(n, T, D), rows as they were."""
    features = np.arange(30.0).reshape(10, 3)
    got = cut(features, window_starts(10, 4, 3), 4)
    assert got.shape == (3, 4, 3)
    assert np.array_equal(got[1], features[3:7])
