"""`prep images` against Pillow; broken, strange and dangerous files are refused by name."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import image_file
from data_prep.ordered_map import ordered_map
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from tests.data_prep.sample_sets import assert_refused, files, names, stored

SIZES = [(40, 30), (30, 47), (24, 24), (10, 8)]


def picture(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Smooth, so that JPEG keeps it nearly."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height)).convert(mode)


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of four images to train on and one each to validate."""
    folder = tmp_path / "in"
    for number, (split, name) in enumerate(
        (split, name) for split in ("train", "val") for name in ("n02", "n01")
    ):
        (folder / split / name).mkdir(parents=True)
        for index, size in enumerate(SIZES if split == "train" else SIZES[:1]):
            image = picture(*size, seed=10 * number + index)
            image.save(folder / split / name / f"{name}_{9 - index}.JPEG")
    (folder / "train" / ".DS_Store").write_text("x")
    return folder


def by_hand(path: Path, size: int) -> np.ndarray:
    """Resize(size), CenterCrop(size) of torchvision, in its own words."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    if width <= height:
        image = image.resize((size, int(size * height / width)), Image.BILINEAR)
    else:
        image = image.resize((int(size * width / height), size), Image.BILINEAR)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return np.array(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def test_images_equal_pillows(command, root, tmp_path):
    """Smaller and larger ones, upright and wide, sorted by class and name."""
    out = tmp_path / "o"
    words = "--size", 24, "--workers", 1, "--samples-per-shard", 3
    assert not command("prep", "images", "--data", root, "--out", out, *words).returncode
    assert names(out) == ["n01", "n02"]
    for split, folder in (("train", "train"), ("heldout", "val")):
        paths = sorted((root / folder).glob("*/*.JPEG"))
        got = stored(out, split)
        assert got["features"].dtype == np.uint8
        assert np.array_equal(got["features"], [by_hand(path, 24) for path in paths])
        assert got["labels"].tolist() == [int(path.parent.name == "n02") for path in paths]
        sources = (out / f"{split}.sources").read_text().splitlines()
        assert sources == [str(path.relative_to(root)) for path in paths]
        assert read_manifest(out).splits[split].sources.lines == len(paths)
    features, labels = open_split(out, "train").batch(np.array([7, 3]))
    assert np.array_equal(features.numpy(), stored(out, "train")["features"][[3, 7]])
    assert labels.tolist() == [0, 1]


def test_any_number_of_workers_gives_the_same_bytes(command, root, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.images._TASK", 3)
    for workers in (1, 3):
        words = "--size", 16, "--workers", workers, "--out", tmp_path / f"out{workers}"
        assert not command("prep", "images", "--data", root, *words).returncode
    assert files(tmp_path / "out1") == files(tmp_path / "out3")


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "bmp")]
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"image.{suffix}"
    picture(30, 20, 0, mode).save(path)
    assert np.array_equal(image_file.read_image(path, 12), by_hand(path, 12))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def bomb(path: Path) -> None:
    """A PNG whose header says 50,000 x 50,000."""
    data = io.BytesIO()
    picture(8, 8, 0).save(data, "PNG")
    content = bytearray(data.getvalue())
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def large(path: Path) -> None:
    """Above Pillow's limit, but not twice: Pillow itself would only warn."""
    Image.new("1", (12_000, 10_000)).save(path, "PNG")


def elongated(path: Path) -> None:
    """Harmless until its shorter side is resized."""
    Image.new("L", (60_000, 1)).save(path, "PNG")


def deep(path: Path) -> None:
    Image.fromarray(np.full((9, 9), 60_000, np.uint16)).save(path, "PNG")


FAULTS = [
    (cut, "truncated"),
    (lambda path: path.write_bytes(b""), "cannot identify"),
    (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "cannot identify"),
    (bomb, "decompression bomb"),
    (large, "decompression bomb"),
    (elongated, "60000 x 1 resized to 3840000 x 64"),
    (deep, "mode I;16: must be one of 1, L,"),
]


@pytest.mark.parametrize(("harm", "word"), FAULTS)
def test_a_broken_image_is_refused_or_skipped(command, root, tmp_path, harm, word):
    """Named in the error, or in skipped.txt; the others are packed as if it were not there."""
    path = root / "train" / "n02" / "n02_8.JPEG"
    harm(path)
    call = "prep", "images", "--data", root, "--size", 64, "--workers", 1
    result = command(*call, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", path, word, before={root})
    result = command(*call, "--out", tmp_path / "skipped", "--skip-broken")
    assert result.returncode == 0
    assert "skipped 1 (named in skipped.txt)" in result.stdout
    said = (tmp_path / "skipped" / "skipped.txt").read_text()
    assert str(path) in said
    assert word in said
    path.unlink()
    assert not command(*call, "--out", tmp_path / "without").returncode
    one, other = files(tmp_path / "skipped"), files(tmp_path / "without")
    del one["manifest.json"], one["skipped.txt"], other["manifest.json"]
    assert one == other
    assert read_manifest(tmp_path / "skipped").counts["skipped"] == 1


def test_a_broken_image_is_named_by_workers_too(command, root, tmp_path):
    path = root / "val" / "n01" / "n01_9.JPEG"
    cut(path)
    words = "prep", "images", "--data", root, "--workers", 2, "--out", tmp_path / "o"
    assert_refused(command(*words), tmp_path / "o", path, "truncated", before={root})


def moved(folder: Path) -> None:
    """The validation images without class folders, as they are downloaded."""
    for path in (folder / "val").glob("*/*"):
        path.rename(folder / "val" / path.name)


def extra(name: str):
    """A file that is no image, or a folder."""

    def harm(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")

    return harm


FOLDERS = [
    (lambda root: (root / "train").rename(root / "training"), "train: No such file"),
    (lambda root: (root / "val").rename(root / "valid"), "val: No such file"),
    (moved, "val/n01_9.JPEG: a file among the classes"),
    (extra("val/n03/a.JPEG"), "val/n03: a class that"),
    (extra("train/n01/notes.txt"), "train/n01/notes.txt: must be files *.jpeg *.jpg"),
    (lambda root: (root / "train/n01/images").mkdir(), "train/n01/images: must be files"),
    (lambda root: (root / "train/n03").mkdir(), "train/n03: holds no images"),
]


@pytest.mark.parametrize(("harm", "words"), FOLDERS)
def test_wrong_folders_are_refused(command, root, tmp_path, harm, words):
    harm(root)
    result = command("prep", "images", "--data", root, "--out", tmp_path / "o", "--workers", 1)
    assert_refused(result, tmp_path / "o", words, before={root})


@pytest.mark.parametrize(
    ("name", "words"), [(b"a\nb.JPEG", "must be one line"), (b"\xff.JPEG", "must be UTF-8")]
)
def test_names_that_no_list_can_hold_are_refused(command, root, tmp_path, name, words):
    folder = root / "train" / "n01"
    (folder / "n01_9.JPEG").rename(
        Path(bytes(folder).decode()) / name.decode(errors="surrogateescape")
    )
    result = command("prep", "images", "--data", root, "--out", tmp_path / "o", "--workers", 1)
    assert_refused(result, tmp_path / "o", words, before={root})


@pytest.mark.parametrize("workers", [1, 2])
def test_the_map_keeps_order_and_reads_only_a_little_ahead(workers):
    """So memory does not grow with the set."""
    taken = []
    results = ordered_map(abs, (taken.append(n) or -n for n in range(100)), workers)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) <= 10 + 2 * workers + 1
    results.close()
