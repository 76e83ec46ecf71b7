"""Windows and remainders account for every frame."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.kaldi.windows import cut, remainders, window_counts


@given(st.integers(0, 200), st.integers(1, 30), st.data())
def test_every_frame_is_in_a_window_or_in_the_remainder(frames, window, data):
    """For every hop up to the window: the covered frames are all but the last `remainder`."""
    hop = data.draw(st.integers(1, window))
    windows = cut(np.arange(frames), window, hop)
    count = int(window_counts(np.array([frames]), window, hop)[0])
    assert windows.shape == (count, window)
    assert np.array_equal(windows[:, 0], np.arange(count) * hop)
    covered = frames - int(remainders(np.array([frames]), window, hop)[0])
    assert np.array_equal(np.unique(windows), np.arange(covered))
    if hop == window:
        assert windows.size == covered
    # One more window would not fit.
    assert count * hop + window > frames


def test_windows_of_features():
    """(n, T, D), rows as they were."""
    features = np.arange(30.0).reshape(10, 3)
    got = cut(features, 4, 3)
    assert got.shape == (3, 4, 3)
    assert np.array_equal(got[1], features[3:7])


def test_windows_that_do_not_overlap_are_a_view():
    """Packing copies no more than it must."""
    features = np.arange(30.0).reshape(10, 3)
    got = cut(features, 4, 4)
    assert got.shape == (2, 4, 3)
    assert got.base is not None
    assert np.shares_memory(got, features)


def test_each_utterance_has_its_own_hop():
    """As the two splits have."""
    frames = np.array([30, 30, 4])
    assert window_counts(frames, 5, np.array([5, 2, 5])).tolist() == [6, 13, 0]
    assert remainders(frames, 5, np.array([5, 2, 5])).tolist() == [0, 1, 4]
