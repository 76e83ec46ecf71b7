"""The options that all `hpcddl prep` commands except Kaldi's have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hpcddl.common.bounds import above, between
from hpcddl.common.errors import UserError


def add_common(
    parser: argparse.ArgumentParser,
    *,
    unit: str = "samples",
    samples_per_shard: int = 65536,
    required: bool = True,
) -> Any:
    """Declares them; returns argparse's group of sources, where a command adds its own."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--synthetic",
        type=between(1, 2**40),
        metavar="N",
        help=f"instead of a download: generate N {unit} to train on and a fifth as many held out, "
        "of the same shape and number of classes; a network can learn them",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the new shard set")
    add("--overwrite", action="store_true", help="replace an earlier shard set at --out")
    add("--seed", type=between(0, 2**63), default=0, help="seed of everything that is random")
    add(
        "--samples-per-shard",
        type=between(1, 2**31 - 1),
        default=samples_per_shard,
        help=f"{unit} in each file except the last",
    )
    return source


def add_classes(parser: argparse.ArgumentParser, default: int, **allowed: Any) -> None:
    """Declares the number of classes of a --synthetic set; `allowed` says which are possible."""
    parser.add_argument(
        "--classes", help=f"only with --synthetic; {default} if not given", **allowed
    )


def add_heldout_fraction(parser: Any) -> None:
    """Declares the option of sets that come without a held-out split."""
    parser.add_argument(
        "--heldout-fraction",
        type=above(0, below=1),
        default=0.1,
        help="fraction of the samples, drawn by --seed",
    )


def check_common(arguments: argparse.Namespace) -> None:
    """Raises UserError for an option of a stand-in where there is none."""
    if arguments.synthetic is None and getattr(arguments, "classes", None) is not None:
        raise UserError(f"--classes: {arguments.classes}: only with --synthetic")
