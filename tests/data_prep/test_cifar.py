"""`prep cifar` against the files' definition, byte for byte; every wrong file is refused."""

import io
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep import cifar
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from tests.data_prep.sample_sets import assert_refused, files, names, stored

BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]
NAMES10 = [f"class_{number}" for number in range(10)]


@pytest.fixture
def small(monkeypatch):
    """CIFAR of 7 images a file, 30 and 7 for CIFAR-100."""
    seven = {name: (split, 7) for name, (split, _) in cifar.CIFAR10.files.items()}
    monkeypatch.setattr(cifar, "CIFAR10", replace(cifar.CIFAR10, files=seven))
    hundred = {"train.bin": ("train", 30), "test.bin": ("heldout", 7)}
    versions = {name: replace(one, files=hundred) for name, one in cifar.CIFAR100.items()}
    monkeypatch.setattr(cifar, "CIFAR100", versions)
    monkeypatch.setattr(cifar, "_BLOCK", 4)


def records(count: int, limits: list[int], seed: int) -> bytes:
    """So many records with labels below the limits."""
    random = np.random.default_rng(seed)
    labels = [bytes(random.integers(0, limit, count, dtype=np.uint8)) for limit in limits]
    pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    return b"".join(
        bytes(label[row] for label in labels) + bytes(pixels[row]) for row in range(count)
    )


@pytest.fixture
def cifar10(tmp_path, small) -> Path:
    folder = tmp_path / "in" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*BATCHES, "test_batch.bin"]):
        (folder / name).write_bytes(records(7, [10], seed))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    (folder / "readme.html").write_text("x")
    return folder


@pytest.fixture
def cifar100(tmp_path, small) -> Path:
    folder = tmp_path / "in" / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(records(30, [20, 100], 0))
    (folder / "test.bin").write_bytes(records(7, [20, 100], 1))
    for kind, count in (("fine", 100), ("coarse", 20)):
        (folder / f"{kind}_label_names.txt").write_text(
            "".join(f"{kind}_{number}\n" for number in range(count))
        )
    return folder


def by_hand(data: bytes, labels: int, which: int) -> tuple[np.ndarray, list[int]]:
    """Images and labels, one byte after another."""
    size = labels + 3072
    images, classes = [], []
    for begin in range(0, len(data), size):
        classes.append(data[begin + which])
        planes = data[begin + labels : begin + size]
        images.append([[planes[c * 1024 + y * 32 :][:32] for y in range(32)] for c in range(3)])
    array = np.array([[[list(row) for row in plane] for plane in image] for image in images])
    return array, classes


def test_cifar10_equals_its_records(command, cifar10, tmp_path):
    result = command("prep", "cifar", "--data", cifar10, "--out", tmp_path / "o")
    assert result.returncode == 0, result.stderr
    for split, parts in (("train", BATCHES), ("heldout", ["test_batch.bin"])):
        images, labels = by_hand(b"".join((cifar10 / part).read_bytes() for part in parts), 1, 0)
        got = stored(tmp_path / "o", split)
        assert got["features"].dtype == np.uint8
        assert np.array_equal(got["features"], images)
        assert got["labels"].tolist() == labels
    manifest = read_manifest(tmp_path / "o")
    assert (manifest.kind, manifest.classes, sum(manifest.class_counts)) == ("images", 10, 35)
    assert names(tmp_path / "o") == NAMES10
    assert len(manifest.provenance["files"]) == 7
    assert "train: 35 samples of 3 x 32 x 32, 1 shards" in result.stdout


@pytest.mark.parametrize(("kind", "which", "classes"), [("fine", 1, 100), ("coarse", 0, 20)])
def test_cifar100_has_two_kinds_of_labels(command, cifar100, tmp_path, kind, which, classes):
    out = tmp_path / "o"
    assert not command(
        *("prep", "cifar", "--data", cifar100, "--labels", kind, "--out", out),
        *("--samples-per-shard", 11),
    ).returncode
    for split, part in (("train", "train.bin"), ("heldout", "test.bin")):
        images, labels = by_hand((cifar100 / part).read_bytes(), 2, which)
        got = stored(out, split)
        assert np.array_equal(got["features"], images)
        assert got["labels"].tolist() == labels
    assert read_manifest(out).classes == classes
    assert names(out)[-1] == f"{kind}_{classes - 1}"
    assert len(read_manifest(out).splits["train"].shards) == 3


def test_images_stay_bytes_and_labels_become_int64(command, cifar10, tmp_path):
    """What the training loop gathers: uint8 (B, 3, 32, 32) and int64 (B,), sorted."""
    command("prep", "cifar", "--data", cifar10, "--out", tmp_path / "o", "--samples-per-shard", 9)
    features, labels = open_split(tmp_path / "o", "train").batch(np.array([30, 2, 17]))
    got = stored(tmp_path / "o", "train")
    assert (str(features.dtype), str(labels.dtype)) == ("torch.uint8", "torch.int64")
    assert np.array_equal(features.numpy(), got["features"][[2, 17, 30]])
    assert np.array_equal(labels.numpy(), got["labels"][[2, 17, 30]])


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_equal_their_folder(command, cifar10, tmp_path, kind):
    """Members in any order; only the provenance tells the difference."""
    archive = tmp_path / f"cifar-10-binary.{kind}"
    paths = sorted(cifar10.iterdir(), reverse=True)
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in paths:
                file.write(path, f"cifar-10-batches-bin/{path.name}")
    else:
        with tarfile.open(archive, "w:gz" if kind == "tar.gz" else "w") as file:
            for path in paths:
                file.add(path, f"cifar-10-batches-bin/{path.name}")
    for name, data in (("a", archive), ("b", cifar10), ("c", cifar10)):
        assert not command("prep", "cifar", "--data", data, "--out", tmp_path / name).returncode
    assert files(tmp_path / "b") == files(tmp_path / "c")
    one, other = files(tmp_path / "a"), files(tmp_path / "b")
    assert list(read_manifest(tmp_path / "a").provenance["files"]) == [str(archive)]
    del one["manifest.json"], other["manifest.json"]
    assert one == other


def cut(folder: Path) -> None:
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-3073])


def wrong_label(folder: Path) -> None:
    data = bytearray((folder / "data_batch_2.bin").read_bytes())
    data[5 * 3073] = 10
    (folder / "data_batch_2.bin").write_bytes(data)


def python_version(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name in ("batches.meta", "data_batch_1"):
        (folder / name).write_bytes(pickle.dumps({}))


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


FAULTS = [
    (cut, ["data_batch_3.bin: 18438 bytes, expected 21511 (7 records of 3073)"]),
    (wrong_label, ["data_batch_2.bin: label 10 of record 5: must be 0 .. 9"]),
    (lambda folder: (folder / "test_batch.bin").unlink(), ["holds no test_batch.bin"]),
    (lambda folder: (folder / "batches.meta.txt").write_text("a\nb\n"), ["2 names, expected 10"]),
    (python_version, ["never loaded", "cifar-10-binary.tar.gz"]),
    (emptied, ["holds neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100)"]),
]


@pytest.mark.parametrize(("harm", "words"), FAULTS)
def test_wrong_files_are_refused(command, cifar10, tmp_path, harm, words):
    harm(cifar10)
    before = set(tmp_path.iterdir())
    result = command("prep", "cifar", "--data", cifar10, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", *words, before=before)


def test_the_python_version_in_its_archive_is_not_loaded(command, tmp_path):
    """A pickle that would leave a file behind, were it loaded."""

    class Mark:
        def __reduce__(self):
            return (open, (str(tmp_path / "loaded"), "w"))

    data = pickle.dumps(Mark())
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.size = len(data)
        file.addfile(member, io.BytesIO(data))
    result = command("prep", "cifar", "--data", archive, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", archive, "binary version", before={archive})


@pytest.mark.parametrize("keep", [200, 20_000])
def test_an_archive_cut_short_is_refused(command, cifar10, tmp_path, keep):
    archive = tmp_path / "in" / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(cifar10, "cifar-10-batches-bin")
    archive.write_bytes(archive.read_bytes()[:keep])
    result = command("prep", "cifar", "--data", archive, "--out", tmp_path / "o")
    words = archive, "cut short"
    assert_refused(result, tmp_path / "o", *words, before={tmp_path / "in"})


def test_what_is_no_archive_is_refused(command, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" * 1000)
    for name, words in (("a.bin", "must be a folder"), ("b.tar.gz", "No such file")):
        result = command("prep", "cifar", "--data", tmp_path / name, "--out", tmp_path / "o")
        assert_refused(result, tmp_path / "o", name, words, before={tmp_path / "a.bin"})


def test_the_real_sets_are_expected_whole():
    """50,000 and 10,000 images in each."""
    for version in (cifar.CIFAR10, *cifar.CIFAR100.values()):
        for split, images in (("train", 50_000), ("heldout", 10_000)):
            assert sum(n for name, n in version.files.values() if name == split) == images
