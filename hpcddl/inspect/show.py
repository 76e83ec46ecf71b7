"""`hpcddl data show`: a picture of some samples and of how often the classes occur."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.common.picture_file import picture_file
from hpcddl.data.manifest import read_manifest
from hpcddl.data.split_files import open_files
from hpcddl.inspect.pictures import PICTURES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl data show`."""
    parser.description = (
        "Draw samples of a shard set (for speech one window with its labels, for images a grid, "
        "for vectors some rows, for text a passage) and how often each class occurs in training."
    )
    parser.epilog = "example: hpcddl data show shards/swb300 --split heldout --sample 17"
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="the folder of the shard set")
    add("--split", default="train", help="the split to draw samples from")
    add("--sample", type=int, default=0, help="number of the (first) sample, from 0")
    add("--out", type=Path, help="picture (.png, .pdf or .svg); default: ./NAME.png, PATH's name")


def run(arguments: argparse.Namespace) -> int:
    """Draws, and prints where."""
    folder = arguments.path
    out = arguments.out or Path(f"{folder.resolve().name}.png")
    manifest = read_manifest(folder)
    field = "tokens" if manifest.kind == "text" else "features"
    files = open_files(folder, arguments.split, field, verify=False)
    samples = int(files.ends[-1])
    if not 0 <= arguments.sample < samples:
        raise UserError(
            f"--sample: {arguments.sample}: must be 0 .. {samples - 1} in {arguments.split}"
        )
    with picture_file(out, "--out", (10, 8), dpi=120) as figure:
        PICTURES[manifest.kind](figure, files, arguments.sample)
    print(f"picture: {out}")
    return 0
