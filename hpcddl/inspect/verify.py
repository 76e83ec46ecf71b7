"""`hpcddl data verify`: every byte and every value of a shard set against its manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import read_manifest
from hpcddl.data.verified_copy import set_files
from hpcddl.data.verify import faults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl data verify`."""
    parser.description = (
        "Read every byte of a shard set, compare checksums with its manifest, and look at every "
        "value: features must be finite, labels and words must be those of the set. Name every "
        "file that is missing, cut, altered or has bad values; exit status 2 when there is one."
    )
    parser.epilog = "example: hpcddl data verify shards/swb300"
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of the shard set")


def run(arguments: argparse.Namespace) -> int:
    """Prints bad files as they are found.

    Raises:
        UserError: there were any.
    """
    folder = arguments.path
    manifest = read_manifest(folder)
    files = bad = 0
    size = sum(file.bytes for file in set_files(folder, manifest))
    with Progress(size, "verifying", "GB", scale=10**9) as progress:
        for _, count, fault in faults(folder, manifest):
            files += 1
            progress.add(count)
            if fault is not None:
                bad += 1
                print(f"bad: {fault}", flush=True)
    if bad:
        raise UserError(f"{folder}: {bad} of {files} files are bad")
    print(
        f"{folder}: {files} files, {progress.done / 1e9:.3f} GB as packed; "
        f"{progress.seconds:.1f} s, {progress.rate:.2f} GB/s"
    )
    return 0
