"""`hpcddl prep kaldi`: a Kaldi experiment packed into HDF5 shards, without Kaldi."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import Any

from data_prep.kaldi.corpus import Sources
from data_prep.kaldi.features import read_cmvn_options
from data_prep.kaldi.jobs import Packer, skipped_lines
from data_prep.kaldi.pack import Layout
from data_prep.kaldi.plan import SKIPPED, HeldOut, Windows
from data_prep.kaldi.stream_options import StreamOptions
from data_prep.kaldi.transition_model import find_model
from data_prep.packing import Packing
from hpcddl.cluster.launcher import promised_size
from hpcddl.common.bounds import above, at_least, between
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep kaldi`."""
    parser.description = (
        "Pack features and alignments of a Kaldi experiment into shards of windows. Applies CMVN "
        "and deltas, pastes several feature folders frame by frame, and takes the pdf-id of every "
        "frame as its class. Kaldi is not needed. Runs as one process, under mpirun, or as an "
        "array of jobs; the same command continues an interrupted packing."
    )
    parser.epilog = (
        "example: hpcddl prep kaldi --data data-fmllr-tri4/train_nodup,cmvn=none,delta-order=0 "
        "--data exp/nnet3/ivectors_train_nodup --data data/train_nodup_logmel "
        "--ali exp/tri4_ali_nodup --out shards/swb300"
    )
    _add_inputs(parser)
    _add_shapes(parser)
    _add_steps(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--data",
        action="append",
        required=True,
        metavar="DIR[,KEY=VALUE...]",
        help="folder with feats.scp (the first also with utt2spk), or online i-vectors; several "
        "are pasted in this order. Keys: cmvn=speaker|global|none, cmvn-stats=FILE, "
        "norm-means=, norm-vars=true|false, skip-dims=A:B, delta-order=N",
    )
    add("--ali", type=Path, required=True, help="folder with ali.*.gz and final.mdl, or one file")
    add("--model", type=Path, help="the model of the alignments; default: ALI/final.mdl")
    add(
        "--pdf-ids",
        type=between(1, 2**31 - 1),
        metavar="C",
        help="the alignments hold pdf-ids 0 .. C-1; no model",
    )
    add("--map", action="append", default=[], metavar="OLD=NEW", help="replace the start of paths")
    add(
        "--length-tolerance",
        type=between(0, 2**16),
        default=2,
        help="frames by which pasted folders may differ",
    )
    add("--allow-pipes", action="store_true", help="run commands in scp files (... |)")
    add(
        "--delta-order",
        type=between(0, 8),
        default=2,
        help="deltas of folders without the key; 0: none",
    )
    add("--no-cmvn", action="store_true", help="leave means and variances as they are")
    add(
        "--norm-vars", action="store_true", help="also normalise variances, whatever cmvn_opts says"
    )


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--frames", type=between(1, 2**16), default=21, help="frames per window")
    add(
        "--hop",
        type=at_least(1),
        help="frames from one training window to the next; default: --frames",
    )
    add(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="type of the stored features",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--heldout-speakers", metavar="A,B", help="names of the speakers to hold out"
    )
    group.add_argument(
        "--heldout-fraction",
        type=above(0, below=1),
        default=0.1,
        help="part of the frames, whole speakers",
    )
    add("--seed", type=between(0, 2**63), default=0, help="seed that draws the held-out speakers")
    add(
        "--windows-per-shard",
        type=between(1, 2**31 - 1),
        default=65536,
        help="windows in each file except the last",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of the new shard set")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier set at --out")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--dry-run", action="store_true", help="only say how large it would be")
    steps.add_argument("--plan", action="store_true", help="only make the plan that jobs share")
    steps.add_argument("--job", metavar="K/N", help="pack the K-th of N parts, K from 1")
    steps.add_argument("--merge", action="store_true", help="verify all parts and finish the set")


def run(arguments: argparse.Namespace) -> int:
    """Packs, then prints what was packed and what was skipped."""
    began = time.monotonic()
    job = _job(arguments.job)
    packing = packer(arguments)
    if (promised_size(os.environ) or 1) > 1:
        if job or arguments.merge or arguments.plan or arguments.dry_run:
            raise UserError("--job, --merge, --plan, --dry-run: for one process, not under mpirun")
        # Imported here, as importing mpi4py starts MPI, which one process does without.
        from hpcddl.cluster.world import World

        world = World.create(vars(arguments))
        with world.failing_together():
            manifest = packing.on_ranks(world)
    elif arguments.dry_run:
        print(packing.estimate())
        return 0
    elif arguments.plan:
        print(packing.plan())
        return 0
    elif job:
        print(packing.job(*job))
        return 0
    else:
        manifest = packing.merge() if arguments.merge else packing.everything()
    if manifest is not None:
        _summarise(manifest, arguments.out, time.monotonic() - began)
    return 0


def _summarise(manifest: Manifest, out: Path, seconds: float) -> None:
    counts = manifest.counts
    for line in skipped_lines(counts["skipped"]):
        print(f"{line} (named in {SKIPPED})")
    shape = " x ".join(map(str, manifest.fields["features"].shape))
    for name, split in manifest.splits.items():
        print(
            f"{name}: {counts['utterances'][name]} utterances of {counts['speakers'][name]} "
            f"speakers, {split.samples} windows of {shape}, "
            f"{counts['remainder_frames'][name]} frames dropped as remainders, "
            f"{len(split.shards)} shards"
        )
    size = sum(split.bytes for split in manifest.splits.values()) / 2**30
    seen = sum(count > 0 for count in manifest.class_counts)
    print(
        f"{out}: {manifest.classes} classes ({seen} seen in training), "
        f"{manifest.fields['features'].dtype}, {size:.3f} GiB, {seconds:.1f} s"
    )


def _job(word: str | None) -> tuple[int, int] | None:
    if word is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", word)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--job: {word!r}: must be K/N with 1 <= K <= N")
    return int(match[1]), int(match[2])


def packer(arguments: argparse.Namespace) -> Packer:
    """The packing that the options describe.

    Raises:
        UserError: they describe none that can be made.
    """
    _check(arguments)
    sources = _sources(arguments)
    windows = Windows(arguments.frames, arguments.hop or arguments.frames)
    return Packer(
        sources=sources,
        layout=Layout(windows, arguments.dtype, arguments.windows_per_shard),
        heldout=HeldOut(
            tuple(filter(None, (arguments.heldout_speakers or "").split(","))),
            arguments.heldout_fraction,
            arguments.seed,
        ),
        packing=Packing(arguments.out, arguments.overwrite),
        provenance=_provenance(arguments, sources),
    )


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.hop or 1) > arguments.frames:
        raise UserError(f"--hop: {arguments.hop}: must be at most --frames {arguments.frames}")
    if arguments.no_cmvn and arguments.norm_vars:
        raise UserError("--norm-vars: not with --no-cmvn")
    if arguments.pdf_ids and arguments.model:
        raise UserError("--model: not with --pdf-ids, which need none")


def _sources(arguments: argparse.Namespace) -> Sources:
    if not arguments.ali.exists():
        raise UserError(f"{arguments.ali}: no such folder or file")
    folder = arguments.ali if arguments.ali.is_dir() else arguments.ali.parent
    cmvn = read_cmvn_options(folder / "cmvn_opts")
    if arguments.norm_vars:
        cmvn = cmvn._replace(norm_means=True, norm_vars=True)
    defaults = StreamOptions(
        directory=Path(),
        cmvn="none" if arguments.no_cmvn else "speaker",
        cmvn_options=cmvn,
        delta_order=arguments.delta_order,
    )
    streams = tuple(StreamOptions.parse(word, defaults) for word in arguments.data)
    return Sources(
        streams=streams,
        alignments=arguments.ali,
        classes=arguments.pdf_ids or arguments.model or find_model(folder),
        map=tuple(arguments.map),
        length_tolerance=arguments.length_tolerance,
        allow_pipes=arguments.allow_pipes,
    )


def _provenance(arguments: argparse.Namespace, sources: Sources) -> dict[str, Any]:
    named = bool(arguments.heldout_speakers)
    return {
        "data": [str(stream) for stream in sources.streams],
        "alignments": str(arguments.ali),
        "classes": str(sources.classes),
        "map": list(arguments.map),
        "length_tolerance": arguments.length_tolerance,
        "hop": arguments.hop or arguments.frames,
        "heldout_speakers": arguments.heldout_speakers.split(",") if named else [],
        "heldout_fraction": None if named else arguments.heldout_fraction,
        "seed": arguments.seed,
    }
