"""Decides between updates whether to write a checkpoint, and whether to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

from mpi4py import MPI

from hpcddl.cluster.world import AgreedError
from hpcddl.common.errors import warn
from hpcddl.run import checkpoint, resume
from hpcddl.run.agreement import Agreement
from hpcddl.run.directory import RunDirectory
from hpcddl.run.finite_state import not_finite
from hpcddl.run.metrics import Metrics
from hpcddl.run.stopping import Notice, Stopped
from hpcddl.training.position import BEGINNING, Position
from hpcddl.training.task import Task


class Options(checkpoint.Due, Protocol):
    """When, and which are kept (config.Checkpointing)."""

    every_minutes: float
    keep_last: int


class Saver:
    """What the loop calls between updates. Collective.

    The interval of `every_minutes` is rank 0's, counted from the last checkpoint of any kind.

    Args:
        saved: called after each checkpoint, on all ranks.
    """

    def __init__(
        self,
        directory: RunDirectory,
        task: Task,
        metrics: Metrics,
        agreement: Agreement,
        notice: Notice,
        options: Options,
        saved: Callable[[], None],
    ) -> None:
        self._directory, self._strategy, self._metrics = directory, task.strategy, metrics
        self._agreement, self._notice, self._options = agreement, notice, options
        self._epochs, self._steps_per_epoch, self._saved = task.epochs, task.steps_per_epoch, saved
        self._on_disk = directory.resumed.position if directory.resumed else None
        self._position = self._on_disk or BEGINNING
        self._since = time.monotonic()  # the last checkpoint, or the start
        self._outdated = False  # whether the round under way began before the last checkpoint

    def __call__(self, position: Position) -> None:
        """Between two updates: saves where that is due; stops where any learner was told to.

        If a checkpoint cannot be written the run continues, as others will follow; if it is the
        last one, the run ends.

        Raises:
            Stopped: after a checkpoint.
            AgreedError: a last checkpoint cannot be written; another job has taken over the folder.
        """
        self._position = position
        interval = 60 * self._options.every_minutes
        over = 0 < interval <= time.monotonic() - self._since
        found = self._agreement.step(self._notice.given(), self._strategy.world.rank == 0 and over)
        last = (position.epoch, position.step) == (self._epochs, 0)
        if found and found.stop and not last:  # else the run ends by itself, now
            self.stop()
        due = checkpoint.is_due(position, self._options, self._epochs, self._steps_per_epoch)
        if found:
            due |= found.due and not self._outdated
            self._outdated = False
        if not due:
            return
        self._check_lock()
        try:
            self._save()
        except AgreedError as error:
            if last:
                raise
            if self._strategy.world.rank == 0:
                warn(f"{error}; training goes on")

    def stop(self) -> NoReturn:
        """Saves what is not on disk yet, and prints by which signal and where the run has stopped.

        Raises:
            Stopped: always, but where AgreedError says that the checkpoint cannot be written.
        """
        world = self._strategy.world
        number = world.comm.allreduce(self._notice.signal, MPI.MAX)
        if self._position != self._on_disk:
            self._check_lock()
            self._save()
        if world.rank == 0:
            where = "no checkpoint yet: --resume begins again"
            if folder := self._newest():
                where = f"--resume goes on from {folder}"
            by, updates = signal.Signals(number).name, self._position.steps
            print(f"stopped by {by} after {updates} updates; {where}", flush=True)
        raise Stopped

    def ended(self) -> None:
        """After the run: where it has diverged, warns that the checkpoint before is the last."""
        since = self._metrics.diverged_since
        if since and self._strategy.world.rank == 0:
            last = self._newest()
            kept = f"the last good one is {last}" if last else "there is no good one before"
            warn(f"no checkpoint after it diverged ({since['reason']}): {kept}")

    def _newest(self) -> Path | None:
        """The folder of the newest checkpoint of this run, None where there is none yet."""
        at = self._on_disk
        return checkpoint.folder_of(self._directory.path, at) if at else None

    def _save(self) -> None:
        """Writes the learners' states, unless the run has diverged and would replace good ones.

        States that are not finite, of any learner, are a divergence: the run ends.
        """
        self._since, self._outdated = time.monotonic(), True
        log = {**self._metrics.state_dict(), **self._directory.told}
        if self._metrics.diverged_since:
            return
        world, state = self._strategy.world, resume.learner_state(self._strategy)
        if reason := not_finite(self._strategy.model, state, world):
            epoch = self._position.epoch + bool(self._position.step)
            self._metrics.diverged_since = {"epoch": epoch, "reason": reason}
            return
        keep = self._options.keep_last, self._options.keep_epochs
        checkpoint.save(self._directory.path, world, self._position, state, log, *keep)
        self._on_disk = self._position
        self._since = time.monotonic()
        self._saved()

    def _check_lock(self) -> None:
        self._strategy.world.on_rank_zero(self._directory.lock.check)
