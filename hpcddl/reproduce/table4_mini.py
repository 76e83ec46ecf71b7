"""`hpcddl reproduce table4-mini`: where SSGD diverges and DPSGD does not (paper A tables 4, 6)."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from hpcddl.cluster.world import World
from hpcddl.commands.table import call
from hpcddl.common.bounds import check_least
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import MANIFEST
from hpcddl.papers import find
from hpcddl.papers.show import table as printed
from hpcddl.report.runs import read_run
from hpcddl.reproduce.prepare import make_folder, prep
from hpcddl.reproduce.table4_mini_plot import draw
from hpcddl.reproduce.table4_mini_report import Corpus, statements, table, trial, write
from hpcddl.sweeps import Run, expand, read_sweep

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
    add("overrides", nargs="*", metavar="key=value", help="dotted keys of every run's recipe")
    add("--digits", type=Path, help="shards of the spoken digits; without, the mini corpus alone")
    add("--seeds", type=int, default=1, help="runs of each combination")
    add("--out", type=Path, default=Path("runs/table4-mini"), help="folder of what comes out")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the table is written, whatever came out."""
    world = World.create()
    with world.failing_together():
        return _run(arguments, world)


def _run(arguments: argparse.Namespace, world: World) -> int:
    out: Path = arguments.out
    shards = {MINI: out / "shards"}
    if arguments.digits:
        shards[DIGITS] = arguments.digits
    world.together(lambda: _check(arguments))
    runs = world.together(
        lambda: {
            name: _runs(name, (*arguments.overrides, f"data.path={path}"), arguments.seeds)
            for name, path in shards.items()
        }
    )
    world.together(lambda: make_folder(out))
    _mini_corpus(out, world)
    total, done = sum(map(len, runs.values())), 0
    for name, family in runs.items():
        recipe = read_sweep(name).recipe
        for one in family:
            done += 1
            if world.rank == 0:
                print(f"\n{done} of {total}: {name} {one.name}", flush=True)
            folder = out / name / one.name
            words = (*one.overrides, "--out", str(folder), "--resume")
            if status := call("train", [recipe, *words]):
                return status
            gc.collect()  # hooks and tensors of a run refer to each other, and would pile up
    if world.rank == 0:
        _report(
            [
                Corpus(name, [trial(read_run(out / name / one.name)) for one in family])
                for name, family in runs.items()
            ],
            out,
        )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    check_least(arguments, {"seeds": 1})
    digits = arguments.digits
    if digits and not (digits / MANIFEST).is_file():
        raise UserError(f"--digits {digits}: no shard set; see `hpcddl prep kaldi`")


def _mini_corpus(out: Path, world: World) -> None:
    """Its shards in OUT, unless they are there already. Collective."""
    shards, corpus = out / "shards", out / "corpus"
    if not world.comm.bcast((shards / MANIFEST).exists()):
        world.together(
            lambda: prep("mini-corpus", str(corpus), "--overwrite") if world.rank == 0 else None
        )
        words = "--data", str(corpus / "data"), "--ali", str(corpus / "ali")
        prep("kaldi", *words, "--out", str(shards))  # shared by all ranks


def _runs(name: str, overrides: tuple[str, ...], seeds: int) -> list[Run]:
    sweep = read_sweep(name)
    axes = [*sweep.axes, {"seed": list(range(seeds))}]
    return expand(sweep.model_copy(update={"axes": axes}), overrides)


def _report(corpora: list[Corpus], out: Path) -> None:
    for corpus in corpora:
        print(f"\n{table(corpus)}")
        for statement in statements(corpus):
            print(statement)
    for numbers in find("a.table4")[1].numbers:
        print("", *printed(numbers), sep="\n")
    write(corpora, out)
    draw(corpora, out)
    print(f"\n{out}: table.csv, table4-mini.png, table4-mini.pdf")
