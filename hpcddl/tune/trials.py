"""The trials of a search: runs of `hpcddl train`, kept as run directories, never run twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import median

from hpcddl.commands.start import TrainCommand
from hpcddl.common.errors import UserError
from hpcddl.run import resume
from hpcddl.run.config import load_config
from hpcddl.run.records import read_run
from hpcddl.run.state import NOT_ABOVE, outcome
from hpcddl.run.stopping import STATUS, Stopped
from hpcddl.tune.searches import Point, labels_of, words_of


class RunFailed(Exception):
    """A run ended with another exit status than 0."""


@dataclass(frozen=True)
class TrialRun:
    """What the run of one seed came to."""

    seed: int
    folder: str
    learners: int
    diverged: bool
    heldout_loss: float | None  # in nats; None: not finite, the run diverged
    heldout_error: float  # 0 .. 1
    not_above_chance: bool = False

    @property
    def lost(self) -> bool:
        """Whether it counts as infinitely bad: it diverged, or is not better than guessing."""
        return self.diverged or self.not_above_chance

    def __str__(self) -> str:
        if self.lost:
            return "diverged" if self.diverged else NOT_ABOVE
        return f"loss {self.heldout_loss:.4f}, error {100 * self.heldout_error:.2f} %"


@dataclass(frozen=True)
class Trial:
    """A point and a run for each seed."""

    point: Point
    runs: tuple[TrialRun, ...]

    def cost(self, by: str) -> float:
        """The median over the seeds; infinite for a run that is lost."""
        return median(inf if run.lost else getattr(run, by) for run in self.runs)


@dataclass(frozen=True)
class Trainer:
    """Trains a recipe at one point after the other, each run in a folder of its own in `out`."""

    recipe: str
    overrides: tuple[str, ...]
    seeds: Sequence[int]
    launcher: Sequence[str]
    out: Path

    def accepts(self, point: Point) -> bool:
        """Whether the recipe allows the values of `point`."""
        try:
            load_config(self.recipe, (*self.overrides, *words_of(point)))
        except UserError:
            return False
        return True

    def train(self, point: Point) -> Trial:
        """Trains with every seed: what has ended is read, what was cut off goes on.

        Raises:
            UserError: a folder is in the way, or holds a run with other settings.
            RunFailed: the run ended with another exit status than 0.
            Stopped: the run was stopped by a signal, with a checkpoint.
        """
        return Trial(point, tuple(self._train(point, seed) for seed in self.seeds))

    def _train(self, point: Point, seed: int) -> TrialRun:
        labels = {**labels_of(point), "seed": seed}
        name = "_".join(f"{label}={value}" for label, value in labels.items())
        folder = self.out / name
        overrides = (*self.overrides, f"seed={seed}", *words_of(point))
        config = load_config(self.recipe, overrides)
        resume.check(folder, config, go_on=True)  # refuses a run with other settings
        began = time.monotonic()
        had_ended = resume.has_ended(folder, config)
        if not had_ended:
            print(f"{name}: begins", flush=True)
            self._start(TrainCommand(self.recipe, overrides, folder))
        run = _read(folder, seed)
        when = "had ended" if had_ended else f"{time.monotonic() - began:.1f} s"
        print(f"{name}: {run} ({when})", flush=True)
        return run

    def _start(self, command: TrainCommand) -> None:
        name = command.folder.name
        path = self.out / f"{name}.log"
        with open(path, "a+") as log:
            before = log.tell()
            status = command.by(self.launcher, log)
            log.seek(before)
            said = [line for line in log if line.startswith("hpcddl: error: ")]
        if status == STATUS:
            raise Stopped
        if status:
            why = "".join(f": {line.partition('error: ')[2].strip()}" for line in said[:1])
            raise RunFailed(f"{name}: exit status {status}{why} ({path})")


def _read(folder: Path, seed: int) -> TrialRun:
    summary = read_run(folder).summary
    return TrialRun(
        seed,
        folder.name,
        summary["learners"],
        summary["diverged"],
        summary["heldout_loss"],
        1 - summary["heldout_accuracy"],
        outcome(summary) == NOT_ABOVE,
    )
