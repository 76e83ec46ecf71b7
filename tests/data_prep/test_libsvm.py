"""`prep libsvm` against scikit-learn's reader, and every malformed line refused."""

import bz2
import gzip
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from data_prep import libsvm
from data_prep.split import heldout_mask
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from tests.data_prep.sample_sets import assert_refused, files, names, stored

LINES = """\
# three classes, five samples
+1 1:0.5 3:-2e-3 7:1
-1 2:1
2.5 \t7:3.25  # a comment

-1
+1.0 1:1 2:1 3:1 4:1 5:1 6:1 7:1 \r
"""
DENSE = [
    [0.5, 0, -2e-3, 0, 0, 0, 1],
    [0, 1, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 3.25],
    [0] * 7,
    [1] * 7,
]
CLASSES = [1, 0, 2, 0, 1]


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "five").write_text(LINES, newline="")
    return folder / "five"


def test_lines_become_dense_vectors(command, data, tmp_path):
    """Classes are the labels in ascending order, as numbers: +1 and 1.0 are one."""
    out = tmp_path / "o"
    assert not command("prep", "libsvm", "--data", data, "--heldout", data, "--out", out).returncode
    assert names(out) == ["-1", "1", "2.5"]
    for split in ("train", "heldout"):
        got = stored(out, split)
        assert np.array_equal(got["features"], np.array(DENSE, np.float32))
        assert got["labels"].tolist() == CLASSES
    manifest = read_manifest(out)
    assert (manifest.kind, manifest.class_counts) == ("vectors", [2, 2, 1])
    features, labels = open_split(out, "train").batch(np.array([4, 0]))
    assert (str(features.dtype), str(labels.dtype)) == ("torch.float32", "torch.int64")
    assert np.array_equal(features.numpy(), np.array([DENSE[0], DENSE[4]], np.float32))
    assert labels.tolist() == [1, 1]


@pytest.mark.parametrize("block", [1, 28, 60, 10**6])
def test_drawn_samples_keep_their_order(command, data, tmp_path, monkeypatch, block):
    """Whatever the size of blocks: the mask parts the file's samples."""
    monkeypatch.setattr(libsvm, "_BLOCK_BYTES", block)
    out = tmp_path / "o"
    words = "prep", "libsvm", "--data", data, "--heldout-fraction", 0.4, "--seed", 5, "--out", out
    assert not command(*words).returncode
    heldout = heldout_mask(5, 0.4, 5)
    for split, mask in (("train", ~heldout), ("heldout", heldout)):
        got = stored(out, split)
        assert np.array_equal(got["features"], np.array(DENSE, np.float32)[mask])
        assert np.array_equal(got["labels"], np.array(CLASSES)[mask])


def test_compressed_files_give_the_same_samples(command, data, tmp_path):
    for suffix, compress in (("gz", gzip.compress), ("bz2", bz2.compress)):
        (tmp_path / f"five.{suffix}").write_bytes(compress(data.read_bytes()))
    paths = [data, data, tmp_path / "five.gz", tmp_path / "five.bz2"]
    made = []
    for number, path in enumerate(paths):
        out = tmp_path / f"out{number}"
        assert not command("prep", "libsvm", "--data", path, "--out", out).returncode
        made.append(files(out))
    assert made[0] == made[1]
    for one in made:
        del one["manifest.json"]
        assert one == made[0]


def test_vectors_may_be_longer_than_the_largest_index(command, data, tmp_path):
    out = tmp_path / "o"
    words = "prep", "libsvm", "--data", data, "--features", 9, "--out", out
    assert not command(*words).returncode
    assert read_manifest(out).fields["features"].shape == (9,)


FAULTS = [
    ("1 0:1", "line 2: indices must ascend, from 1"),
    ("1 3:1 2:1", "line 2: indices must ascend, from 1"),
    ("1 3:1 3:1", "line 2: indices must ascend, from 1"),
    ("1 1:nan", "line 2: value nan: must be finite in float32"),
    ("1 1:-inf", "line 2: value -inf"),
    ("1 1:1e39", "line 2: value 1e+39"),
    ("1 1:x", "line 2: could not convert string to float: b'x'"),
    ("1 1:2:3", "line 2: '1:2:3', expected index:value"),
    ("1 1: 2", "line 2: '1:', expected index:value"),
    ("1 -1:2", "line 2: '-1:2', expected index:value"),
    ("1 2", "line 2: '2', expected index:value"),
    ("1 1:1_0", "line 2: '1:1_0', expected index:value"),
    ("1 qid:3 1:2", "line 2: has a qid: ranking data"),
    ("1:2 3:4", "line 2: begins with '1:2', expected a label"),
    ("1,2 1:1", "line 2: label '1,2', must be one number per sample"),
    ("nan 1:1", "line 2: label 'nan': must be a finite number"),
    ("\x80PK\x00", "line 2: "),
]


@pytest.mark.parametrize(("line", "words"), FAULTS)
def test_malformed_lines_are_refused(command, tmp_path, line, words):
    path = tmp_path / "bad"
    path.write_bytes(b"1 1:1\n" + line.encode("latin-1") + b"\n")
    result = command("prep", "libsvm", "--data", path, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", path, words, before={path})


def test_wrong_sets_are_refused(command, data, tmp_path, monkeypatch):
    def refused(*words: object, say: str) -> None:
        before = set(tmp_path.iterdir())
        result = command("prep", "libsvm", *words, "--out", tmp_path / "o")
        assert_refused(result, tmp_path / "o", say, before=before)

    refused("--data", data, "--features", 6, say="sample 1 has index 7, --features is 6")
    refused("--data", data, "--features", 0, say="--features: 0: must be a whole number, 1 .. 2")
    refused("--data", tmp_path / "none", say="none: cannot be read")
    refused("--data", "/dev/null", say="no sample has a feature")
    empty = "--data", data, "--heldout", "/dev/null"
    refused(*empty, say="the heldout split is empty")
    refused("--data", data, "--heldout", data, "--heldout-fraction", 0.2, say="not allowed with")
    refused("--synthetic", 5, "--heldout", data, say="--heldout: allowed only with --data")
    monkeypatch.setattr(libsvm, "_MAX_CLASSES", 2)
    refused("--data", data, say="more than 2 labels")


def test_dense_vectors_larger_than_the_disk_are_refused_beforehand(command, tmp_path, monkeypatch):
    """Both sizes are named, and nothing has been written."""
    wide = tmp_path / "wide"
    wide.write_text("0 1:1 200000000:1\n1 2:1\n" * 500)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 0, 75 * 2**30))
    result = command("prep", "libsvm", "--data", wide, "--out", tmp_path / "o")
    said = "1000 samples of 200000000 float32 + 1 int32 take 745.1 GiB, 75.0 GiB are free"
    assert_refused(result, tmp_path / "o", said, before={wide})


def test_w8a_equals_scikit_learns_reading(command, real_data, tmp_path):
    """Paper B's set: 49,749 samples of 300 features."""
    from sklearn.datasets import load_svmlight_file

    path = real_data / "libsvm-w8a" / "w8a"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not a file")
    out = tmp_path / "o"
    words = "prep", "libsvm", "--data", path, "--heldout", path, "--out", out
    assert not command(*words).returncode
    features, labels = load_svmlight_file(str(path), n_features=300, dtype=np.float32)
    got = stored(out, "train")
    assert got["features"].shape == (49_749, 300)
    assert np.array_equal(got["features"], features.toarray())
    assert np.array_equal(np.array([-1, 1])[got["labels"]], labels)
    assert names(out) == ["-1", "1"]
    assert read_manifest(out).class_counts == [int((labels < 0).sum()), int((labels > 0).sum())]
