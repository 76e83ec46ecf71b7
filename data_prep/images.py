"""`hpcddl prep images`: folders of images, laid out as ImageNet's, decoded once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.arguments import add_classes, add_common
from data_prep.image_file import Decode
from data_prep.image_folder import Listing, list_images
from data_prep.ordered_map import ordered_map
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.synthetic import synthetic_images
from hpcddl.common.bounds import between
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import labelled

_TASK = 16  # images that a worker decodes at a time
_CLASSES = 1000  # of ImageNet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep images`."""
    parser.description = (
        "Pack ROOT/train/CLASS/*.JPEG and ROOT/val/CLASS/*.JPEG (also .jpg .png .bmp .ppm): "
        "shorter side resized to --size (antialiased bilinear), cropped to the central square. "
        "Samples are sorted by class and name; training reads them in random order."
    )
    parser.epilog = "example: hpcddl prep images --data imagenet --out shards/imagenet --workers 16"
    source = add_common(parser, samples_per_shard=4096)
    source.add_argument("--data", type=Path, metavar="ROOT", help="folder that holds train and val")
    add = parser.add_argument
    add("--size", type=between(1, 4096), default=256, help="height and width of the stored images")
    add(
        "--skip-broken",
        action="store_true",
        help="decode all images first, and leave out those that fail",
    )
    cores = len(os.sched_getaffinity(0))
    add("--workers", type=between(1, 1024), default=cores, help="processes that decode")
    add_classes(parser, _CLASSES, type=between(1, 10**6))


def run(arguments: argparse.Namespace) -> int:
    """Packs the images, or with --synthetic generated ones."""
    read = _read if arguments.synthetic is None else _synthetic
    return pack(arguments, "hpcddl prep images", read)


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    names = [f"class{number:06d}" for number in range(arguments.classes or _CLASSES)]
    return synthetic_images(arguments, (3, arguments.size, arguments.size), names)


def _read(arguments: argparse.Namespace) -> SampleSet:
    root, decode, workers = arguments.data, Decode(arguments.size), arguments.workers
    classes, listings = list_images(root)
    skipped: list[str] = []
    if arguments.skip_broken:
        for split, listing in listings.items():
            faults = _faults(root, listing, decode, workers)
            broken = np.array([fault is not None for fault in faults], np.bool_)
            listings[split] = listing.without(broken)
            skipped += filter(None, faults)
    return SampleSet(
        kind="images",
        fields=labelled((3, arguments.size, arguments.size), "uint8"),
        names=classes,
        samples={split: len(listing.paths) for split, listing in listings.items()},
        blocks=_blocks(root, listings, decode, workers),
        provenance={"data": str(root), "size": arguments.size, "resize": "antialiased bilinear"},
        sources={split: listing.paths for split, listing in listings.items()},
        skipped=skipped,
    )


def _tasks(root: Path, listing: Listing) -> Iterator[list[Path]]:
    for begin in range(0, len(listing.paths), _TASK):
        yield [root / path for path in listing.paths[begin : begin + _TASK]]


def _faults(root: Path, listing: Listing, decode: Decode, workers: int) -> list[str | None]:
    found: list[str | None] = []
    with Progress(len(listing.paths), "checking", "images") as progress:
        for faults in ordered_map(decode.faults, _tasks(root, listing), workers):
            found += faults
            progress.add(len(faults))
    return found


def _blocks(
    root: Path, listings: dict[str, Listing], decode: Decode, workers: int
) -> Iterator[Block]:
    for split, listing in listings.items():
        begin = 0
        for images in ordered_map(decode, _tasks(root, listing), workers):
            end = begin + len(images)
            yield split, {"features": images, "labels": listing.labels[begin:end]}
            begin = end
