"""`prep digits` against scikit-learn's own arrays."""

import sys

import numpy as np
import pytest

from data_prep.split import heldout_mask
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import read_manifest
from tests.data_prep.sample_sets import assert_refused, files, stored


def test_digits_are_all_there_once(command, tmp_path):
    """1,797 images times 15, parted by the seed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    out = tmp_path / "o"
    words = "prep", "digits", "--out", out, "--heldout-fraction", 0.2, "--seed", 3
    assert not command(*words).returncode
    heldout = heldout_mask(1797, 0.2, 3)
    assert heldout.sum() == 359
    for split, mask in (("train", ~heldout), ("heldout", heldout)):
        got = stored(out, split)
        assert got["features"].shape == (mask.sum(), 1, 8, 8)
        assert np.array_equal(got["features"][:, 0] / 15, digits.images[mask])
        assert np.array_equal(got["labels"], digits.target[mask])
    want = np.bincount(digits.target[~heldout])
    assert read_manifest(out).class_counts == want.tolist()


def test_the_same_seed_gives_the_same_bytes(command, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert not command("prep", "digits", "--out", tmp_path / name, "--seed", seed).returncode
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["heldout-00000.h5"] != files(tmp_path / "c")["heldout-00000.h5"]


def test_without_scikit_learn_one_line_says_what_to_install(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = command("prep", "digits", "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", "pip install scikit-learn", before=set())


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fractions_out_of_range_are_refused(command, tmp_path, fraction):
    result = command("prep", "digits", "--out", tmp_path / "o", "--heldout-fraction", fraction)
    assert_refused(
        result, tmp_path / "o", "--heldout-fraction", "must be above 0 and below 1", before=set()
    )


def test_both_sides_of_a_split_hold_something():
    assert heldout_mask(2, 0.001, 0).sum() == 1
    assert heldout_mask(2, 0.999, 0).sum() == 1
    assert heldout_mask(1000, 0.25, 0).sum() == 250
    with pytest.raises(UserError, match="1 samples"):
        heldout_mask(1, 0.5, 0)
