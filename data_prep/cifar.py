"""`hpcddl prep cifar`: CIFAR-10 and CIFAR-100, binary version.

A file is a row of records (www.cs.toronto.edu/~kriz/cifar.html): the label in one byte (CIFAR-100:
the coarse label, then the fine one), then the red, green and blue plane of 32 x 32 bytes each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.archive import Archive
from data_prep.arguments import add_classes, add_common
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.synthetic import synthetic_images
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import labelled

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_BLOCK = 4096  # records
_PICKLED = ("batches.meta", "data_batch_1", "meta", "train")


@dataclass(frozen=True)
class Version:
    """The files of CIFAR-10 or CIFAR-100, how many records each holds, and of what."""

    files: dict[str, tuple[str, int]]  # name -> split, records
    label_bytes: int
    names: str
    label: int  # which of a record's label bytes counts
    classes: int

    @property
    def record_bytes(self) -> int:
        """Size of one record."""
        return self.label_bytes + _PIXELS


CIFAR10 = Version(
    {
        **{f"data_batch_{number}.bin": ("train", 10_000) for number in range(1, 6)},
        "test_batch.bin": ("heldout", 10_000),
    },
    label_bytes=1,
    names="batches.meta.txt",
    label=0,
    classes=10,
)
_CIFAR100_FILES = {"train.bin": ("train", 50_000), "test.bin": ("heldout", 10_000)}
CIFAR100 = {
    "coarse": Version(_CIFAR100_FILES, 2, "coarse_label_names.txt", label=0, classes=20),
    "fine": Version(_CIFAR100_FILES, 2, "fine_label_names.txt", label=1, classes=100),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep cifar`."""
    parser.description = (
        "Pack CIFAR-10 or CIFAR-100 (recognised by its files) from the binary version; the test "
        "images become the held-out split. The python version is refused: unpickling runs code."
    )
    parser.epilog = "example: hpcddl prep cifar --data cifar-10-binary.tar.gz --out shards/cifar10"
    source = add_common(parser)
    source.add_argument("--data", type=Path, help="the downloaded archive, or the unpacked folder")
    parser.add_argument(
        "--labels", choices=("fine", "coarse"), default="fine", help="which classes of CIFAR-100"
    )
    add_classes(parser, 10, type=int, choices=(10, 100))


def run(arguments: argparse.Namespace) -> int:
    """Packs the set, or with --synthetic a generated one."""
    read = _read if arguments.synthetic is None else _synthetic
    return pack(arguments, "hpcddl prep cifar", read)


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    names = [str(number) for number in range(arguments.classes or 10)]
    return synthetic_images(arguments, _SHAPE, names)


def _read(arguments: argparse.Namespace) -> SampleSet:
    with Archive(arguments.data) as archive:
        version = _version(archive, arguments.labels)
        for name, (_, records) in version.files.items():
            size, expected = archive.size(name), records * version.record_bytes
            if size != expected:
                raise UserError(
                    f"{archive.where(name)}: {size} bytes, expected {expected} "
                    f"({records} records of {version.record_bytes})"
                )
        names = _names(archive, version)
        files = archive.checksums([*version.files, version.names])
    samples = {"train": 0, "heldout": 0}
    for split, records in version.files.values():
        samples[split] += records
    return SampleSet(
        kind="images",
        fields=labelled(_SHAPE, "uint8"),
        names=names,
        samples=samples,
        blocks=_blocks(arguments.data, version),
        provenance={"files": files, "label_names": version.names},
    )


def _version(archive: Archive, labels: str) -> Version:
    if "data_batch_1.bin" in archive:
        return CIFAR10
    if "train.bin" in archive:
        return CIFAR100[labels]
    if any(name in archive for name in _PICKLED):
        raise UserError(
            f"{archive.path}: the python version of CIFAR (pickle files, which are never loaded); "
            "must be the binary version, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz"
        )
    raise UserError(
        f"{archive.path}: holds neither data_batch_1.bin (CIFAR-10) nor train.bin (CIFAR-100)"
    )


def _names(archive: Archive, version: Version) -> list[str]:
    with archive.open(version.names) as file:
        names = file.read().decode(errors="replace").split()
    if len(names) != version.classes:
        raise UserError(
            f"{archive.where(version.names)}: {len(names)} names, expected {version.classes}"
        )
    return names


def _blocks(path: Path, version: Version) -> Iterator[Block]:
    with Archive(path) as archive:
        for name, (split, records) in version.files.items():
            with archive.open(name) as file:
                for begin in range(0, records, _BLOCK):
                    count = min(_BLOCK, records - begin)
                    block = np.frombuffer(file.read(count * version.record_bytes), np.uint8)
                    block = block.reshape(count, version.record_bytes)
                    labels = block[:, version.label].astype(np.int32)
                    wrong = np.flatnonzero(labels >= version.classes)
                    if len(wrong):
                        raise UserError(
                            f"{archive.where(name)}: label {labels[wrong[0]]} of record "
                            f"{begin + wrong[0]}: must be 0 .. {version.classes - 1}"
                        )
                    images = block[:, version.label_bytes :].reshape(count, *_SHAPE)
                    yield split, {"features": images, "labels": labels}
