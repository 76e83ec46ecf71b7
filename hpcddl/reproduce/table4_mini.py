"""`hpcddl reproduce table4-mini`: where SSGD diverges and DPSGD does not (paper A tables 4, 6)."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.commands.start import TrainCommand
from hpcddl.commands.table import call
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import MANIFEST
from hpcddl.reproduce.on_ranks import run_study
from hpcddl.reproduce.table4_mini_plot import draw
from hpcddl.reproduce.table4_mini_report import Corpus, outcome, report
from hpcddl.run.records import read_run
from hpcddl.run.stopping import Stopped
from hpcddl.sweeps.definition import SweepRun, expand, read_sweep

MINI, DIGITS = "mini.table4", "kaldi_digits.table4"  # sweeps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl reproduce table4-mini`."""
    parser.description = (
        "Held-out loss of SSGD and DPSGD by batch and learning rate, with the speech schedule, on "
        "the embedded mini corpus (made and packed in OUT) and on a packed Kaldi experiment: the "
        "sweeps mini.table4 and kaldi_digits.table4. What has been trained in OUT is not trained "
        "again."
    )
    parser.epilog = "example: mpirun -np 4 hpcddl reproduce table4-mini --digits shards/digits"
    add = parser.add_argument
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace those of every run's recipe",
    )
    add("--digits", type=Path, help="shards of the spoken digits; without, the mini corpus alone")
    add("--seeds", type=at_least(1), default=1, help="runs of each combination")
    add("--out", type=Path, default=Path("runs/table4-mini"), help="folder for the results")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the table is written, whatever came out; 75 when a run was stopped."""
    return run_study(arguments, _expand, _train, report, draw)


def _expand(arguments: argparse.Namespace, world: World) -> dict[str, list[SweepRun]]:
    """The runs of each sweep, by its name."""
    digits = arguments.digits
    shards = {MINI: arguments.out / "shards"}
    if digits:
        if not (digits / MANIFEST).is_file():
            raise UserError(f"--digits {digits}: no shard set; see `hpcddl prep kaldi`")
        shards[DIGITS] = digits
    runs = {}
    for name, path in shards.items():
        sweep = read_sweep(name)
        axes = [*sweep.axes, {"seed": list(range(arguments.seeds))}]
        overrides = *arguments.overrides, f"data.path={path}"
        runs[name] = expand(sweep.model_copy(update={"axes": axes}), overrides)
    return runs


def _train(
    arguments: argparse.Namespace, world: World, runs: dict[str, list[SweepRun]]
) -> list[Corpus]:
    """Trains what has not been trained; all that the runs came to. Collective.

    Raises:
        Stopped: by a signal.
    """
    out: Path = arguments.out
    _pack_mini_corpus(out, world)
    total, done = sum(map(len, runs.values())), 0
    corpora = []
    for name, family in runs.items():
        recipe = read_sweep(name).recipe
        outcomes = []
        for one in family:
            done += 1
            if world.rank == 0:
                print(f"\n{done} of {total}: {name} {one.name}", flush=True)
            command = TrainCommand(recipe, one.overrides, out / name / one.name)
            if command.here():
                raise Stopped
            gc.collect()  # hooks and tensors of a run refer to each other, and would pile up
            if world.rank == 0:
                outcomes.append(outcome(read_run(command.folder)))
        corpora.append(Corpus(name, outcomes))
    return corpora


def _pack_mini_corpus(out: Path, world: World) -> None:
    """Makes its shards in OUT, unless they are there already. Collective."""
    shards, corpus = out / "shards", out / "corpus"
    if not world.comm.bcast((shards / MANIFEST).exists()):
        world.on_rank_zero(lambda: call("prep mini-corpus", [str(corpus), "--overwrite"]))
        words = ["--data", str(corpus / "data"), "--ali", str(corpus / "ali")]
        call("prep kaldi", [*words, "--out", str(shards)])  # shared by all ranks
