"""`hpcddl prep kaldi`: a Kaldi experiment packed into HDF5 shards, without Kaldi."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from data_prep.features import read_cmvn_options
from data_prep.folder import new_folder
from data_prep.kaldi_pack import Options, pack
from data_prep.transition_model import find_model
from hpcddl.data.manifest import MANIFEST, Manifest
from hpcddl.errors import UserError

_NAMES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep kaldi`."""
    parser.description = (
        "Packs features and alignments of a Kaldi experiment into shards of windows: per-speaker "
        "CMVN, deltas, and the pdf-id of every frame as its class. Kaldi is not needed."
    )
    parser.epilog = (
        "example: hpcddl prep kaldi --data egs/data/train --ali egs/exp/tri1_ali --out shards "
        "--heldout-fraction 0.1 --map /old/home/egs=$PWD/egs"
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with feats.scp, utt2spk, cmvn.scp")
    add("--ali", type=Path, required=True, help="folder with ali.*.gz and final.mdl")
    add("--out", type=Path, required=True, help="the new shard set")
    add("--model", type=Path, help="the model of the alignments, if not ALI/final.mdl")
    add("--map", action="append", default=[], metavar="OLD=NEW", help="replace a path prefix")
    add("--frames", type=int, default=21, help="frames per window")
    add("--hop", type=int, help="frames between training windows, if not --frames")
    add("--dtype", choices=("float16", "float32"), default="float16", help="stored features")
    add("--delta-order", type=int, default=2, help="0: none")
    add("--no-cmvn", action="store_true", help="leave means and variances as they are")
    add("--norm-vars", action="store_true", help="normalise variances whatever cmvn_opts says")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--heldout-speakers", metavar="A,B", help="speakers to hold out, by name")
    group.add_argument(
        "--heldout-fraction", type=float, default=0.1, help="of the frames, by whole speakers"
    )
    add("--seed", type=int, default=0, help="draws the held-out speakers")
    add("--windows-per-shard", type=int, default=65536, help="windows in each file but the last")
    add("--overwrite", action="store_true", help="replace an earlier shard set at --out")


def run(arguments: argparse.Namespace) -> int:
    """Packs, then says what was packed and what was not."""
    began = time.monotonic()
    options = _options(arguments)
    with new_folder(arguments.out, MANIFEST, arguments.overwrite) as folder:
        manifest = pack(options, folder)
    _summarise(manifest, arguments.out, time.monotonic() - began)
    return 0


def _options(arguments: argparse.Namespace) -> Options:
    for name, low, high in (
        ("frames", 1, 2**16),
        ("hop", 1, arguments.frames),
        ("delta_order", 0, 8),
        ("windows_per_shard", 1, 2**31 - 1),
        ("seed", 0, 2**63),
    ):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')}: {value}, allowed: {low} .. {high}")
    if not 0 < arguments.heldout_fraction < 1:
        raise UserError(f"--heldout-fraction: {arguments.heldout_fraction}, allowed: 0 < F < 1")
    if arguments.no_cmvn and arguments.norm_vars:
        raise UserError("--norm-vars: not with --no-cmvn")
    for folder in (arguments.data, arguments.ali):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    means, variances = read_cmvn_options(arguments.ali / "cmvn_opts")
    return Options(
        data=arguments.data,
        alignments=arguments.ali,
        model=arguments.model or find_model(arguments.ali),
        map=tuple(arguments.map),
        frames=arguments.frames,
        hop=arguments.hop or arguments.frames,
        dtype=arguments.dtype,
        delta_order=arguments.delta_order,
        norm_means=(means or arguments.norm_vars) and not arguments.no_cmvn,
        norm_vars=(variances or arguments.norm_vars) and not arguments.no_cmvn,
        heldout_speakers=tuple(filter(None, (arguments.heldout_speakers or "").split(","))),
        heldout_fraction=arguments.heldout_fraction,
        seed=arguments.seed,
        windows_per_shard=arguments.windows_per_shard,
    )


def _summarise(manifest: Manifest, out: Path, seconds: float) -> None:
    for reason, names in manifest.counts["skipped"].items():
        shown = ", ".join(names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        print(f"skipped {len(names)} utterances ({reason}): {shown}{more}")
    for name, split in manifest.splits.items():
        print(
            f"{name}: {len(split.utterances)} utterances of {len(split.speakers)} speakers, "
            f"{split.windows} windows of {manifest.frames} x {manifest.features}, "
            f"{manifest.counts['remainder_frames'][name]} frames dropped as remainders, "
            f"{len(split.shards)} shards"
        )
    size = sum(split.bytes for split in manifest.splits.values()) / 2**30
    seen = sum(count > 0 for count in manifest.class_counts)
    print(
        f"{out}: {manifest.classes} classes ({seen} seen in training), "
        f"{manifest.dtype}, {size:.3f} GiB, {seconds:.1f} s"
    )
