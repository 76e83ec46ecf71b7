"""`hpcddl evaluate`; with --posteriors it writes scores for Kaldi's decoders."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep.kaldi.as_packed import streams_as_packed
from data_prep.kaldi.scorer import Scorer
from hpcddl.cluster.world import World
from hpcddl.commands import evaluate as evaluate_command
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import read_manifest
from hpcddl.run.trained import Trained, trained_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl evaluate`, and of its posteriors."""
    evaluate_command.add_arguments(parser)
    parser.description = (
        f"{parser.description} With --posteriors: write scores log p(pdf | frame) - S log p(pdf) "
        "of every frame of a Kaldi data folder, for decoders such as latgen-faster-mapped; CMVN, "
        "deltas and pasting are those with which the run's shards were packed."
    )
    parser.epilog = (
        f"{parser.epilog}; hpcddl evaluate runs/a --feats data/eval2000 --posteriors eval2000.ark"
    )
    add = parser.add_argument_group("posteriors").add_argument
    add("--posteriors", type=Path, metavar="OUT.ark", help="the archive to write, and OUT.scp")
    add(
        "--feats",
        action="append",
        metavar="DIR[,KEY=VALUE...]",
        help="a folder as for hpcddl prep kaldi --data, one for each folder that the shards were "
        "packed from; keys replace those of the packing",
    )
    add(
        "--prior-scale",
        type=at_least(0.0),
        metavar="S",
        help="factor S of the training set's log prior; default: 1",
    )
    add("--hop", type=at_least(1), help="frames from a window to the next; default: half a window")
    add(
        "--map",
        action="append",
        metavar="OLD=NEW",
        help="replace the start of paths, before --map of the packing",
    )
    add("--allow-pipes", action="store_true", help="run commands in scp files (... |)")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, or scores."""
    if arguments.posteriors is None:
        for name in ("feats", "prior_scale", "hop", "map", "allow_pipes"):
            value = getattr(arguments, name)
            if value is not None and value is not False:
                raise UserError(f"--{name.replace('_', '-')}: only with --posteriors")
        return evaluate_command.run(arguments)
    world = World.create(vars(arguments))
    with world.failing_together():
        world.together(lambda: _check(arguments))
        trained = trained_of(arguments, arguments.run, world)
        with world.together(lambda: scorer(arguments, trained)) as scored, trained.statistics():
            frames = scored.write(arguments.posteriors)
    if world.rank == 0:
        print(
            f"{arguments.posteriors}: {len(frames)} utterances, {frames.sum()} frames, "
            f"{trained.heldout.classes} pdfs"
        )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.posteriors.suffix != ".ark":
        raise UserError(f"--posteriors {arguments.posteriors}: must be a name that ends in .ark")
    if not arguments.feats:
        raise UserError("--feats: missing; must be the folders to score, as packed by prep kaldi")
    if arguments.json:
        raise UserError("--json: not with --posteriors")


def scorer(arguments: argparse.Namespace, trained: Trained) -> Scorer:
    """Makes the scorer of the folders that the options name, with the run's packing options.

    Raises UserError for a run that was not trained on speech packed from Kaldi, or bad options.
    """
    manifest = read_manifest(trained.config.data.options["path"])
    options = streams_as_packed(manifest, arguments.feats)
    window = manifest.fields["features"].shape[0]
    hop = arguments.hop if arguments.hop is not None else max(1, window // 2)
    if hop > window:
        raise UserError(f"--hop: {hop}: must be at most the {window} frames of a window")
    scale = 1.0 if arguments.prior_scale is None else arguments.prior_scale
    words = (*(arguments.map or ()), *manifest.provenance["map"])
    return Scorer(trained, manifest, options, words, arguments.allow_pipes, hop, scale)
