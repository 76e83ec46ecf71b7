"""`hpcddl prep mnist`: MNIST and Fashion-MNIST from their idx files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.archive import Archive
from data_prep.arguments import add_common
from data_prep.idx import read_blocks, read_shape
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.synthetic import synthetic_images
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import labelled

_SHAPE = (1, 28, 28)
_BLOCK = 4096  # images
_PREFIX = {"train": "train", "heldout": "t10k"}
DIGITS = [str(digit) for digit in range(10)]
FASHION = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


@dataclass(frozen=True)
class _Split:
    images: str  # file names
    labels: str
    classes: NDArray[np.int32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep mnist`."""
    parser.description = (
        "Pack MNIST or Fashion-MNIST from train-images-idx3-ubyte, train-labels-idx1-ubyte and "
        "the t10k files, which become the held-out split; compressed (.gz) or not."
    )
    parser.epilog = "example: hpcddl prep mnist --data downloads/mnist --out shards/mnist"
    source = add_common(parser)
    source.add_argument("--data", type=Path, help="the folder or the archive with the four files")
    parser.add_argument(
        "--fashion", action="store_true", help="use the class names of Fashion-MNIST"
    )


def run(arguments: argparse.Namespace) -> int:
    """Packs the set, or with --synthetic a generated one."""
    read = _read if arguments.synthetic is None else _synthetic
    return pack(arguments, "hpcddl prep mnist", read)


def _names(arguments: argparse.Namespace) -> list[str]:
    return FASHION if arguments.fashion else DIGITS


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    return synthetic_images(arguments, _SHAPE, _names(arguments))


def _read(arguments: argparse.Namespace) -> SampleSet:
    with Archive(arguments.data) as archive:
        splits = {split: _split(archive, prefix) for split, prefix in _PREFIX.items()}
        used = [name for split in splits.values() for name in (split.images, split.labels)]
        files = archive.checksums(used)
    return SampleSet(
        kind="images",
        fields=labelled(_SHAPE, "uint8"),
        names=_names(arguments),
        samples={name: len(split.classes) for name, split in splits.items()},
        blocks=_blocks(arguments.data, splits),
        provenance={"files": files},
    )


def _file(archive: Archive, prefix: str, what: str, dimensions: int) -> str:
    stems = [f"{prefix}-{what}{mark}idx{dimensions}-ubyte" for mark in "-."]
    return archive.first([stem + suffix for suffix in ("", ".gz") for stem in stems])


def _split(archive: Archive, prefix: str) -> _Split:
    images = _file(archive, prefix, "images", 3)
    labels = _file(archive, prefix, "labels", 1)
    with archive.open(images) as file:
        shape = read_shape(file, archive.where(images), 3)
    if shape[1:] != _SHAPE[1:]:
        raise UserError(
            f"{archive.where(images)}: images of {shape[1]} x {shape[2]}, expected 28 x 28"
        )
    with archive.open(labels) as file:
        where = archive.where(labels)
        (count,) = read_shape(file, where, 1)
        if count != shape[0]:
            raise UserError(f"{where}: {count} labels, {images} has {shape[0]} images")
        parts = list(read_blocks(file, where, (count,), 1 << 20))
    classes = np.concatenate([np.empty(0, np.uint8), *parts]).astype(np.int32)
    wrong = np.flatnonzero(classes >= len(DIGITS))
    if len(wrong):
        raise UserError(f"{where}: label {classes[wrong[0]]} at {wrong[0]}: must be 0 .. 9")
    return _Split(images, labels, classes)


def _blocks(path: Path, splits: dict[str, _Split]) -> Iterator[Block]:
    with Archive(path) as archive:
        for name, split in splits.items():
            begin = 0
            with archive.open(split.images) as file:
                where = archive.where(split.images)
                shape = read_shape(file, where, 3)
                for images in read_blocks(file, where, shape, _BLOCK):
                    end = begin + len(images)
                    features = images[:, None]
                    yield name, {"features": features, "labels": split.classes[begin:end]}
                    begin = end
