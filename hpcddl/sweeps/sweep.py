"""`hpcddl sweep`: the runs of a sweep, listed, one by one, or as the tasks of a job array."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hpcddl.cluster.launcher import promised_size
from hpcddl.commands.start import TrainCommand, parse_launcher
from hpcddl.common.errors import UserError
from hpcddl.recipes import name_of
from hpcddl.run.state import read_state
from hpcddl.run.stopping import STATUS
from hpcddl.sweeps.definition import Sweep, SweepRun, expand, names, read_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl sweep`."""
    parser.description = (
        "List the runs of a sweep with their states and commands. --run starts one in this job, "
        "--all one after the other; finished ones are left alone, others go on where they stopped."
    )
    parser.epilog = (
        "example: mpirun -np 4 hpcddl sweep mini.table4 --run 3    # or "
        "--run $SLURM_ARRAY_TASK_ID; hpcddl sweep mini.table4 --all --launcher 'mpirun -np 4'"
    )
    add = parser.add_argument
    add("sweep", nargs="?", help="a packaged sweep or a YAML file; without it all are listed")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace those of every run's recipe",
    )
    add("--out", type=Path, help="folder of the runs' folders (default: runs/SWEEP)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--run", type=int, metavar="I", help="train run I, counted from 0, here")
    action.add_argument(
        "--all", action="store_true", help="train all runs, each started by LAUNCHER"
    )
    action.add_argument("--count", action="store_true", help="print the number of runs")
    action.add_argument("--folder", type=int, metavar="I", help="print the folder of run I")
    add("--stage", metavar="DIR", help="see `hpcddl train`")
    add(
        "--launcher",
        help="what starts a run's ranks; {learners} in it becomes their number "
        "(default: mpirun -np {learners})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0; 1 when a run of `--all` failed; 75 when one was stopped by a signal."""
    if arguments.sweep is None:
        width = max(map(len, names()), default=0)
        for name in names():
            print(f"{name:<{width}}  {read_sweep(name).description}")
        return 0
    sweep = read_sweep(arguments.sweep)
    runs = expand(sweep, tuple(arguments.overrides))
    name = name_of(arguments.sweep)
    out = arguments.out or Path("runs") / name
    if arguments.count:
        print(len(runs))
        return 0
    if arguments.folder is not None:
        print(out / _nth(runs, "--folder", arguments.folder).name)
        return 0
    if arguments.run is not None:
        return _train(sweep, _nth(runs, "--run", arguments.run), arguments, out)
    launcher = arguments.launcher or "mpirun -np {learners}"
    if "{learners}" not in launcher and any(one.learners for one in runs):
        raise UserError(
            f"--launcher {launcher!r}: must have {{learners}} in it; an axis varies their number"
        )
    if arguments.all:
        return _train_all(sweep, runs, arguments.stage, out, launcher)
    for index, one in enumerate(runs):
        command = _command(sweep, one, arguments.stage, out)
        word = read_state(command.folder).word
        print(f"{index:3}  {word:9}  {command.text(_launcher(launcher, sweep, one))}")
    return 0


def _command(sweep: Sweep, run: SweepRun, stage: str | None, out: Path) -> TrainCommand:
    return TrainCommand(sweep.recipe, run.overrides, out / run.name, stage)


def _nth(runs: list[SweepRun], option: str, index: int) -> SweepRun:
    if not 0 <= index < len(runs):
        raise UserError(f"{option} {index}: must be 0 to {len(runs) - 1}")
    return runs[index]


def _launcher(text: str, sweep: Sweep, run: SweepRun) -> list[str]:
    """The words that start the ranks of `run`."""
    return parse_launcher(text.replace("{learners}", str(run.learners or sweep.learners)))


def _train(sweep: Sweep, run: SweepRun, arguments: argparse.Namespace, out: Path) -> int:
    started = promised_size(os.environ) or 1
    if run.learners not in (None, started):
        raise UserError(
            f"--run {arguments.run}: {run.name} is a run of {run.learners} learners, "
            f"not of the {started} that were started"
        )
    return _command(sweep, run, arguments.stage, out).here()


def _train_all(
    sweep: Sweep, runs: list[SweepRun], stage: str | None, out: Path, launcher: str
) -> int:
    failed = []
    for index, one in enumerate(runs):
        print(f"run {index} of {len(runs)}: {one.name}", flush=True)
        status = _command(sweep, one, stage, out).by(_launcher(launcher, sweep, one))
        if status == STATUS:
            return STATUS
        if status:
            failed.append(one.name)
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
