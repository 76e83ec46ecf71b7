"""Shards: what goes in comes out, and no fault of a file goes unnoticed."""

import json
import multiprocessing
import os
import re
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hpcddl.data.manifest import MANIFEST, read_manifest
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.data.shards import Shards, layout, open_split, schema, verify
from hpcddl.errors import UserError
from hpcddl.files import sha256


def h5py_features(folder: Path, name: str = "features") -> np.ndarray:
    """All rows of the training split through HDF5's own reader."""
    parts = []
    for path in sorted(folder.glob("train-*.h5")):
        with h5py.File(path, "r") as file:
            parts.append(file[name][:])
    return np.concatenate(parts)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_is_bit_for_bit(make, dtype):
    """What h5py reads is what was appended; float16 is NumPy's rounding of it."""
    made = make(dtype)
    assert np.array_equal(h5py_features(made.folder), made.features.astype(dtype))
    assert np.array_equal(h5py_features(made.folder, "labels"), made.labels)
    assert np.array_equal(h5py_features(made.folder, "utterance"), made.utterance)
    assert np.array_equal(h5py_features(made.folder, "start"), made.start)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("per_shard", [1, 20, 53, 100])
def test_gather_equals_h5py(make, dtype, per_shard):
    """A batch is the sorted rows of HDF5's own reader, however the set is cut into shards."""
    made = make(dtype, per_shard=per_shard)
    split = open_split(made.folder, "train")
    indices = np.random.default_rng(0).permutation(len(split)).astype(np.uint32)[:31]
    features, labels = split.batch(indices)
    rows = np.sort(indices)
    assert features.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert np.array_equal(features.numpy(), h5py_features(made.folder)[rows].astype(np.float32))
    assert np.array_equal(labels.numpy(), made.labels[rows])


def test_gather_fills_larger_and_smaller_batches(make):
    """The scratch arrays of a thread serve every batch size, repeated indices included."""
    made = make("float16")
    split = open_split(made.folder, "train")
    for count in (3, 40, 1, 0, 41):
        indices = np.random.default_rng(count).integers(0, len(split), count)
        features, labels = split.batch(indices)
        want = made.features.astype(np.float16).astype(np.float32)[np.sort(indices)]
        assert np.array_equal(features.numpy(), want)
        assert np.array_equal(labels.numpy(), made.labels[np.sort(indices)])


@pytest.mark.parametrize("bad", [-1, 53, 2**40])
def test_indices_outside_are_refused(make, bad):
    """take(mode="clip") would return a wrong row without a word."""
    split = open_split(make().folder, "train")
    with pytest.raises(IndexError, match=r"0 \.\. 52"):
        split.batch(np.array([0, bad, 1]))


def test_attributes_and_class_counts(make):
    """The manifest's dimensions, and the training split's label histogram on both splits."""
    made = make()
    for name, windows in (("train", 53), ("heldout", 4)):
        split = open_split(made.folder, name)
        assert (len(split), split.frames, split.features, split.classes) == (windows, 5, 7, 11)
        assert np.array_equal(split.class_counts, np.bincount(made.labels.ravel(), minlength=11))


def test_same_input_gives_same_bytes(make):
    """Neither times nor the size of the appended pieces show in the files."""
    one, other = make(name="one", step=9), make(name="other", step=53)
    files = sorted(path.name for path in one.folder.iterdir())
    assert files == sorted(path.name for path in other.folder.iterdir())
    for name in files:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name


def test_nothing_partial_is_left(make):
    """A finished set holds its shards and manifest only."""
    names = {path.name for path in make().folder.iterdir()}
    assert names == {
        "train-00000.h5",
        "train-00001.h5",
        "train-00002.h5",
        "heldout-00000.h5",
        MANIFEST,
    }


def _rewrite_header(folder: Path) -> None:
    """Makes the manifest agree with the bytes on disk, so that only the layout can be wrong."""
    text = json.loads((folder / MANIFEST).read_text())
    for shard in text["splits"]["train"]["shards"]:
        path = folder / shard["file"]
        shard["bytes"] = path.stat().st_size
        shard["header_sha256"] = sha256(path, shard["header_bytes"])
        shard["sha256"] = sha256(path)
    (folder / MANIFEST).write_text(json.dumps(text))


def _replace(path: Path, **options: object) -> None:
    """Writes the shard again with other storage options for its features."""
    with h5py.File(path, "r") as file:
        arrays = {name: file[name][:] for name in file}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if name == "features":
                file.create_dataset(name, **{"data": array, **options})
            else:
                file.create_dataset(name, data=array)


LAYOUTS = [
    ({"chunks": (1, 5, 7)}, "chunked or compressed"),
    ({"compression": "gzip"}, "chunked or compressed"),
    ({"dtype": ">f4"}, "type >f4, expected <f4"),
    ({"dtype": "<f8"}, "type <f8, expected <f4"),
    ({"data": np.zeros((20, 5, 6), np.float32)}, r"shape \(20, 5, 6\), expected \(20, 5, 7\)"),
    ({"data": None, "shape": (20, 5, 7), "dtype": "<f4"}, "never written"),
]


@pytest.mark.parametrize(("options", "message"), LAYOUTS)
def test_what_cannot_be_mapped_is_refused(make, options, message):
    """Only contiguous, unfiltered, little-endian, allocated datasets of the right shape."""
    folder = make().folder
    _replace(folder / "train-00000.h5", **options)
    _rewrite_header(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_split(folder, "train")
    assert "train-00000.h5" in str(caught.value)


def test_unaligned_dataset_is_refused(tmp_path):
    """NumPy copies a whole unaligned map at every access."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("features", data=np.zeros((1, 5, 7), "<f2"))  # 70 bytes
        file.create_dataset("labels", data=np.zeros((1, 5), "<i4"))
        file.create_dataset("utterance", data=np.zeros(1, "<i4"))
        file.create_dataset("start", data=np.zeros(1, "<i4"))
    with pytest.raises(UserError, match=r"labels begins at byte .*, no multiple of 4"):
        layout(tmp_path / "x.h5", schema(1, 5, 7, "float16"))


def test_missing_dataset_is_named(make):
    folder = make().folder
    with h5py.File(folder / "train-00001.h5", "a") as file:
        del file["labels"]
    _rewrite_header(folder)
    with pytest.raises(UserError, match=r"train-00001.h5: no dataset 'labels'"):
        open_split(folder, "train")


@pytest.mark.parametrize("check", [None, True, False])
def test_truncated_shard_is_found_at_open(make, check):
    """Whatever is checksummed: a cut file must never become a bus error in training."""
    folder = make().folder
    path = folder / "train-00002.h5"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"train-00002.h5: \d+ bytes, expected \d+"):
        open_split(folder, "train", verify=check)


def test_missing_shard_is_found_at_open(make):
    folder = make().folder
    (folder / "train-00001.h5").unlink()
    with pytest.raises(UserError, match=r"train-00001.h5: .*No such file"):
        open_split(folder, "train")


def _flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("where", ["header", "features", "start"])
def test_altered_byte_is_found(make, where):
    """One flipped bit anywhere: in small sets at open, in all by verify()."""
    folder = make().folder
    path = folder / "train-00001.h5"
    entry = read_manifest(folder).splits["train"].shards[1]
    offset = {"header": 500, "features": entry.header_bytes + 77, "start": entry.bytes - 1}[where]
    _flip(path, offset)
    for check in (lambda: open_split(folder, "train"), lambda: verify(folder)):
        with pytest.raises(UserError, match=r"train-00001.h5: altered: SHA-256"):
            check()
    if where == "header":
        with pytest.raises(UserError, match="of the first"):
            open_split(folder, "train", verify=False)
    else:
        open_split(folder, "train", verify=False)


def test_large_sets_are_checksummed_only_when_asked(make, monkeypatch):
    """Above the limit the default reads headers only; verify=True reads all."""
    folder = make().folder
    entry = read_manifest(folder).splits["train"].shards[0]
    _flip(folder / "train-00000.h5", entry.header_bytes)
    monkeypatch.setattr(sys.modules[Shards.__module__], "VERIFY_LIMIT_BYTES", 100)
    open_split(folder, "train")
    with pytest.raises(UserError, match="altered"):
        open_split(folder, "train", verify=True)


def test_verify_passes_and_returns_the_manifest(make):
    assert verify(make().folder).splits["train"].windows == 53


MANIFESTS = [
    (lambda text: text.update(version=2), "version"),
    (lambda text: text.update(format="other"), "format"),
    (lambda text: text.pop("classes"), "classes: Field required"),
    (lambda text: text.update(extra=1), "extra"),
    (lambda text: text["splits"]["train"].update(windows=54), "54, but its shards hold 53"),
    (lambda text: text["class_counts"].pop(), "10 entries, expected classes = 11"),
    (
        lambda text: text["splits"]["train"]["shards"][0].update(file="../train-00000.h5"),
        "file: String should match",
    ),
]


@pytest.mark.parametrize(("change", "message"), MANIFESTS)
def test_bad_manifest_is_named(make, change, message):
    """One line with the field, for every way a manifest can disagree with the format."""
    folder = make().folder
    text = json.loads((folder / MANIFEST).read_text())
    change(text)
    (folder / MANIFEST).write_text(json.dumps(text))
    with pytest.raises(UserError, match=message) as caught:
        open_split(folder, "train")
    assert str(caught.value).count("\n") == 0


def test_folder_without_manifest_and_unknown_split(make, tmp_path):
    with pytest.raises(UserError, match="no shard set, or its packing did not finish"):
        open_split(tmp_path, "train")
    folder = make().folder
    with pytest.raises(UserError, match=re.escape("no split 'test'; it has ['heldout', 'train']")):
        open_split(folder, "test")
    (folder / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: file: Invalid JSON"):
        open_split(folder, "train")


def test_writer_refuses_other_counts_and_labels(tmp_path):
    """Fewer or more windows than announced, or a label that is no class, is the caller's error."""
    features, labels = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2), np.int32)
    numbers = np.zeros(3, np.int32)

    def writer(windows: int) -> ShardSetWriter:
        return ShardSetWriter(
            tmp_path,
            frames=2,
            features=2,
            classes=2,
            dtype="float32",
            windows={"train": windows},
            windows_per_shard=2,
        )

    with pytest.raises(ValueError, match="more windows than the 2 announced"):
        writer(2).append("train", features, labels, numbers, numbers)
    with pytest.raises(ValueError, match=r"labels span 0 .. 2, expected 0 .. 1"):
        writer(3).append("train", features, np.full_like(labels, [0, 2]), numbers, numbers)
    with writer(4) as short:
        short.append("train", features, labels, numbers, numbers)
        with pytest.raises(ValueError, match="3 windows, 4 announced"):
            short.finish(utterances={}, speakers={}, utterance_speaker={}, provenance={}, counts={})
    assert not (tmp_path / MANIFEST).exists()


def _sum_of_labels(split: Shards, queue: "multiprocessing.SimpleQueue[int]") -> None:
    queue.put(int(split.batch(np.arange(len(split)))[1].sum()))


def test_opened_before_a_fork_usable_after(make):
    """Parent and child read the same maps."""
    made = make()
    split = open_split(made.folder, "train")
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_sum_of_labels, args=(split, queue))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == made.labels.sum() == split.batch(np.arange(53))[1].sum()


def test_sets_can_be_moved(make, tmp_path):
    """Nothing inside names the folder."""
    made = make()
    shutil.move(made.folder, tmp_path / "elsewhere")
    assert len(open_split(tmp_path / "elsewhere", "train")) == 53
