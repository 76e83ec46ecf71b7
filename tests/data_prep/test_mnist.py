"""`prep mnist` against the idx files read by hand; every wrong file is refused."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep import mnist
from hpcddl.data.manifest import read_manifest
from tests.data_prep.sample_sets import assert_refused, files, names, stored

SIZES = {"train": 11, "t10k": 5}


def write(folder: Path, mark: str = "-", suffix: str = "") -> Path:
    """The four files, with 11 and 5 random digits."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in SIZES.items():
        images = struct.pack(">IIII", 0x803, count, 28, 28) + random.bytes(count * 784)
        labels = struct.pack(">II", 0x801, count) + bytes(n * 3 % 10 for n in range(count))
        for what, dimensions, data in (("images", 3, images), ("labels", 1, labels)):
            name = f"{prefix}-{what}{mark}idx{dimensions}-ubyte{suffix}"
            (folder / name).write_bytes(gzip.compress(data, mtime=0) if suffix else data)
    return folder


@pytest.fixture
def plain(tmp_path) -> Path:
    return write(tmp_path / "in")


def test_images_equal_the_files(command, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "_BLOCK", 4)
    out = tmp_path / "o"
    assert not command("prep", "mnist", "--data", plain, "--out", out).returncode
    for split, prefix in (("train", "train"), ("heldout", "t10k")):
        images = (plain / f"{prefix}-images-idx3-ubyte").read_bytes()
        labels = (plain / f"{prefix}-labels-idx1-ubyte").read_bytes()
        got = stored(out, split)
        assert got["features"].shape == (SIZES[prefix], 1, 28, 28)
        assert got["features"].tobytes() == images[16:]
        assert got["labels"].tolist() == list(labels[8:])
    manifest = read_manifest(out)
    assert (manifest.kind, manifest.classes) == ("images", 10)
    assert names(out) == list("0123456789")
    assert len(manifest.provenance["files"]) == 4


@pytest.mark.parametrize(("mark", "suffix"), [(".", ""), ("-", ".gz"), (".", ".gz")])
def test_every_spelling_gives_the_same_samples(command, plain, tmp_path, mark, suffix):
    other = write(tmp_path / "other", mark, suffix)
    for name, data in (("a", plain), ("b", other), ("c", other)):
        assert not command("prep", "mnist", "--data", data, "--out", tmp_path / name).returncode
    assert files(tmp_path / "b") == files(tmp_path / "c")
    one, two = files(tmp_path / "a"), files(tmp_path / "b")
    assert one.pop("manifest.json") != two.pop("manifest.json")
    assert one == two


def test_a_name_may_lie_about_compression(command, plain, tmp_path):
    """Browsers decompress a download and keep its name."""
    for path in list(plain.iterdir()):
        path.rename(path.with_name(path.name + ".gz"))
    assert not command("prep", "mnist", "--data", plain, "--out", tmp_path / "o").returncode


def test_fashion_has_names(command, plain, tmp_path):
    words = "prep", "mnist", "--data", plain, "--fashion", "--out", tmp_path / "o"
    assert not command(*words).returncode
    assert names(tmp_path / "o")[::9] == ["T-shirt/top", "Ankle boot"]


def change(name: str, data: bytes, at: int = 0):
    """Overwrites bytes of a file."""

    def harm(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at : at + len(data)] = data
        (folder / name).write_bytes(content)

    return harm


def resize(name: str, by: int):
    """Cuts a file, or makes it longer."""

    def harm(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:by] if by < 0 else content + bytes(by))

    return harm


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FAULTS = [
    (change(IMAGES, b"\0\0\x08\x01"), f"{IMAGES}: begins with 0x00000801, expected 0x00000803"),
    (change(LABELS, b"\x80\x04\x95\0"), f"{LABELS}: begins with 0x800495"),
    (resize(IMAGES, -1), f"{IMAGES}: 8623 bytes after the header, which says 11 x 28 x 28"),
    (resize(IMAGES, 1), f"{IMAGES}: goes on after"),
    (resize(LABELS, -1), f"{LABELS}: 4 bytes after the header"),
    (resize(IMAGES, -8624 - 3), f"{IMAGES}: ends in its header, at byte 13"),
    (resize(IMAGES, -8624 - 16), f"{IMAGES}: begins with 0x, expected"),
    (change(IMAGES, struct.pack(">I", 32), 8), f"{IMAGES}: images of 32 x 28, expected 28 x 28"),
    (change(LABELS, struct.pack(">I", 6), 4), f"{LABELS}: 6 labels, t10k-images-idx3-ubyte has 5"),
    (change(LABELS, b"\x0a", 10), f"{LABELS}: label 10 at 2: must be 0 .. 9"),
    (lambda folder: (folder / LABELS).unlink(), f"holds no {LABELS} or t10k-labels.idx1-ubyte"),
]


@pytest.mark.parametrize(("harm", "words"), FAULTS)
def test_wrong_files_are_refused(command, plain, tmp_path, harm, words):
    harm(plain)
    result = command("prep", "mnist", "--data", plain, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", plain, words, before={plain})


@pytest.mark.parametrize("by", [-10, -2000])
def test_compressed_files_cut_short_are_refused(command, tmp_path, by):
    folder = write(tmp_path / "in", suffix=".gz")
    resize(f"{IMAGES}.gz", by)(folder)
    result = command("prep", "mnist", "--data", folder, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", f"{IMAGES}.gz", "cut short", before={folder})
