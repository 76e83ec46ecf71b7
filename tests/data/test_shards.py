"""Shards: what goes in comes out, and no fault of a file goes unnoticed."""

import json
import multiprocessing
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hpcddl.common.errors import UserError
from hpcddl.common.files import checksum
from hpcddl.data.manifest import MANIFEST, STRUCTURE, FieldEntry, read_manifest, window_fields
from hpcddl.data.shard_file import ShardWriter, check_contents, check_shard, layout
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.data.shards import Shards, open_split
from hpcddl.data.verify import faults, verify
from tests.conftest import run_python


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
        assert (len(split), split.shape, split.classes) == (windows, (5, 7), 11)
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
        "train.utt2spk",
        "heldout.utt2spk",
        MANIFEST,
    }


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
    ({"dtype": ">f4"}, "is >f4 of .*, expected <f4"),
    ({"dtype": "<f8"}, "is <f8 of .*, expected <f4"),
    ({"data": np.zeros((20, 5, 6), np.float32)}, r"of \(20, 5, 6\), expected <f4 of \(20, 5, 7\)"),
    ({"data": None, "shape": (20, 5, 7), "dtype": "<f4"}, "never written"),
]


@pytest.mark.parametrize(("options", "message"), LAYOUTS)
def test_what_cannot_be_mapped_is_refused(make, options, message):
    """Only contiguous, unfiltered, little-endian, allocated datasets of the right shape."""
    path = make().folder / "train-00000.h5"
    _replace(path, **options)
    with pytest.raises(UserError, match=message) as caught:
        layout(path, window_fields(5, 7, "float32"), 20)
    assert "train-00000.h5" in str(caught.value)


def test_another_file_in_a_shards_place_is_found_at_open(make):
    """Same size, same datasets, other places in the file."""
    folder = make().folder
    path = folder / "train-00000.h5"
    size = path.stat().st_size
    _replace(path)
    with pytest.raises(UserError, match=r"train-00000\.h5: "):
        open_split(folder, "train")
    os.truncate(path, size)
    with pytest.raises(UserError, match="the HDF5 structure is altered"):
        open_split(folder, "train")


def test_missing_dataset_is_named(make):
    path = make().folder / "train-00001.h5"
    with h5py.File(path, "a") as file:
        del file["labels"]
    with pytest.raises(UserError, match=r"train-00001.h5: no dataset 'labels'"):
        layout(path, window_fields(5, 7, "float32"), 20)


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


@pytest.mark.parametrize("where", [STRUCTURE, "padding", "features", "labels", "start"])
def test_altered_byte_is_found(make, where):
    """One flipped bit anywhere: in small sets at open, in all by verify(), which names what."""
    folder = make().folder
    path = folder / "train-00001.h5"
    regions = layout(path, read_manifest(folder).fields, 20)
    end = regions["labels"].offset + regions["labels"].size
    assert regions["utterance"].offset > end
    _flip(path, {STRUCTURE: 500, "padding": end}.get(where) or regions[where].offset + 77)
    structure = where in (STRUCTURE, "padding")
    what = f"train-00001.h5: {'the HDF5 structure' if structure else where} is altered: checksum"
    for check in (lambda: open_split(folder, "train"), lambda: verify(folder)):
        with pytest.raises(UserError, match=what):
            check()
    if structure:
        with pytest.raises(UserError, match=what):
            open_split(folder, "train", verify=False)
    else:
        open_split(folder, "train", verify=False)


def test_every_byte_is_checksummed(make):
    """A flip of any single byte of a shard is found."""
    folder = make(windows=4, per_shard=2).folder
    manifest = read_manifest(folder)
    path, entry = folder / "train-00000.h5", manifest.splits["train"].shards[0]
    good = path.read_bytes()

    def check() -> None:
        check_contents(path, entry, check_shard(path, entry, manifest.fields))

    for offset in range(len(good)):
        bad = bytearray(good)
        bad[offset] ^= 1 << offset % 8
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"train-00000\.h5"):
            check()
    path.write_bytes(good)
    check()


def test_all_faults_are_listed(make):
    """One bad file does not hide the next; names of utterances count, too."""
    folder = make().folder
    _flip(folder / "train-00001.h5", 500)
    _flip(folder / "heldout.utt2spk", 0)
    (folder / "heldout-00000.h5").unlink()
    found = {file: fault for file, _, fault in faults(folder, read_manifest(folder)) if fault}
    assert sorted(found) == ["heldout-00000.h5", "heldout.utt2spk", "train-00001.h5"]


def test_checksum_of_a_part(tmp_path):
    """The checksum of bytes a .. b is that of a file of them."""
    (tmp_path / "all").write_bytes(bytes(range(200)))
    (tmp_path / "part").write_bytes(bytes(range(50, 90)))
    assert checksum(tmp_path / "all", 50, 40) == checksum(tmp_path / "part")


def test_large_sets_are_checksummed_only_when_asked(make, monkeypatch):
    """Above the limit the default reads the structure only; verify=True reads all."""
    folder = make().folder
    regions = layout(folder / "train-00000.h5", read_manifest(folder).fields, 20)
    _flip(folder / "train-00000.h5", regions["features"].offset)
    monkeypatch.setattr("hpcddl.data.split_files.VERIFY_LIMIT_BYTES", 100)
    open_split(folder, "train")
    with pytest.raises(UserError, match="altered"):
        open_split(folder, "train", verify=True)


def test_verify_passes_and_returns_the_manifest(make):
    assert verify(make().folder).splits["train"].samples == 53


MANIFESTS = [
    (lambda text: text.update(version=1), "version"),
    (lambda text: text.update(format="other"), "format"),
    (lambda text: text.pop("classes"), "classes: Field required"),
    (lambda text: text.update(extra=1), "extra"),
    (lambda text: text["splits"]["train"].update(samples=54), "54, but its shards hold 53"),
    (lambda text: text["class_counts"].pop(), "10 entries, expected classes = 11"),
    (
        lambda text: text["splits"]["train"]["shards"][0].update(file="../train-00000.h5"),
        "file: String should match",
    ),
    (
        lambda text: text["splits"]["train"]["shards"][0]["offsets"].update(labels=4098),
        "train-00000.h5: labels lies at bytes 4098",
    ),
    (
        lambda text: text["splits"]["train"]["shards"][0]["checksums"].pop("start"),
        "train-00000.h5: expected offsets and checksums",
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
    """Fewer or more samples than announced is the caller's error, a label no class the data's."""
    fields = {
        "features": FieldEntry(shape=(2,), dtype="float32"),
        "labels": FieldEntry(shape=(), dtype="int32"),
    }
    arrays = {"features": np.zeros((3, 2), np.float32), "labels": np.zeros(3, np.int32)}

    def writer(samples: int) -> ShardSetWriter:
        counts = {"train": samples}
        return ShardSetWriter(
            tmp_path, "vectors", fields, classes=2, samples=counts, samples_per_shard=2
        )

    with pytest.raises(ValueError, match="more samples than the 2 announced"):
        writer(2).append("train", **arrays)
    expected = r"train-00001.h5: split train, sample 0 of this shard: label is 2; must be 0 .. 1"
    with writer(3) as bad, pytest.raises(UserError, match=expected):
        bad.append("train", **{**arrays, "labels": np.array([0, 1, 2], np.int32)})
    with pytest.raises(
        ValueError, match=r"float64 of \(3, 2\), expected float32 of \(2, 2\)|float64"
    ):
        writer(3).append("train", **{**arrays, "features": np.zeros((3, 2))})
    with writer(4) as short:
        short.append("train", **arrays)
        with pytest.raises(ValueError, match="3 samples, 4 announced"):
            short.finish(provenance={}, counts={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000.h5"]


def test_a_shard_that_is_not_whole_is_not_there(tmp_path):
    """Neither under its name nor aside; two writers of one shard do not meet."""
    fields = {"tokens": FieldEntry(shape=(), dtype="int32")}
    with ShardWriter(tmp_path / "train-00000.h5", fields, 5) as shard:
        shard.append({"tokens": np.arange(3, dtype=np.int32)})
        with pytest.raises(ValueError, match="2 of 5 samples are missing"):
            shard.seal()
        with pytest.raises(ValueError, match="3 samples, room for 2"):
            shard.append({"tokens": np.arange(3, dtype=np.int32)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["created", "written"])
def test_full_disk_is_one_clear_line(tmp_path, when):
    """A limit on the size of files stands in for a full disk; nothing partial stays."""
    code = f"""
import os, resource, signal
import numpy as np
from pathlib import Path
from hpcddl.data.manifest import FieldEntry
from hpcddl.data.shard_file import ShardWriter
from hpcddl.common.errors import UserError

def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
fields = {{"tokens": FieldEntry(shape=(), dtype="int32")}}
if "{when}" == "created":
    fill()
try:
    with ShardWriter(Path({str(tmp_path)!r}) / "a.h5", fields, 9000) as shard:
        fill()
        shard.append({{"tokens": np.zeros(9000, np.int32)}})
except UserError as error:
    print(error, flush=True)
    os._exit(0)
"""
    done = run_python("-c", code)
    assert "File too large" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


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
