"""What a run records while it trains: metrics.jsonl, TensorBoard and the terminal."""

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from mpi4py import MPI

from hpcddl.common.finite import finite
from hpcddl.run.display import Board, Display
from hpcddl.run.divergence import Heldout
from hpcddl.training.diagnostics import Measurement
from hpcddl.training.evaluate import Evaluation
from hpcddl.training.loop import Log
from hpcddl.training.task import Task

_START = {
    "seconds": {},
    "rounds": 0,
    "bytes_sent": 0.0,
    "file_bytes": 0,
    "heldout": [],
    "last": (0, 0, 0.0),
}


class Metrics(Log):
    """Writes down what the loop tells. Every rank calls the same methods; only rank 0 writes.

    `diverged_since` is set, on all ranks alike, by the first step whose loss, averaged over the
    learners, is NaN or infinite; its epoch is the current one, counted from 1. When the learners
    exchange their losses they also agree on a loss scale, which thus costs no other wait.
    """

    def __init__(self, run: Path, task: Task, every: int, state: dict[str, Any] | None) -> None:
        """Opens the files of the run directory `run`.

        Args:
            every: steps from one line on the loss to the next.
            state: what `state_dict` returned, to go on from; None at a run's beginning.
        """
        super().__init__()
        strategy = task.strategy
        before = {**_START, **(state or {})}  # earlier versions' states have less
        self.world, self.traffic = strategy.world, strategy.traffic
        self.watch.seconds = dict(before["seconds"])
        self.traffic.seconds = self.watch.seconds.pop("communicate", 0.0)
        self.heldout = [Heldout(*values) for values in before["heldout"]]
        self._bytes_before = before["bytes_sent"]
        self._rounds_before = before["rounds"]
        self._every, self._steps_per_epoch = every, task.steps_per_epoch
        self._epochs, self._global_batch = task.epochs, task.global_batch
        self._loss_scale = strategy.loss_scale
        self._losses: list[torch.Tensor] = []
        self._last = tuple(before["last"])  # epoch, step and rate of the newest loss
        self._file: TextIO | None = None
        if self.world.rank == 0:
            path = run / "metrics.jsonl"
            path.touch()
            # What a killed run wrote after its last checkpoint will be written again.
            os.truncate(path, before["file_bytes"])
            self._file = open(path, "a")  # noqa: SIM115
            self._board = Board(run / "tensorboard")
            self._display = Display(task.steps_per_epoch, task.epochs)

    def step(self, epoch: int, step: int, rate: float, loss: torch.Tensor) -> None:
        """Stores one update's loss (on its device); reports every `every` steps of an epoch."""
        self._losses.append(loss.detach())
        self._last = epoch, step, rate
        if (step + 1) % self._every == 0 or step + 1 == self._steps_per_epoch:
            self._report()
            if self._loss_scale:
                # Not in `_report`: a checkpoint reports too, and would make another run of it.
                self._loss_scale.agree(self.world.comm)

    def diagnosis(self, epoch: int, step: int, rate: float, measured: Measurement) -> None:
        """Stores what was measured of the update whose loss was stored last."""
        values = {name: finite(value) for name, value in asdict(measured).items() if name != "step"}
        done = epoch + (step + 1) / self._steps_per_epoch
        self._write("diagnostics", epoch=round(done, 6), learning_rate=rate, **values)

    def evaluation(self, epoch: int, result: Evaluation) -> None:
        """Reports the consensus after `epoch` epochs."""
        self.heldout.append(Heldout(epoch, finite(result.loss), result.accuracy))
        if self.diverged_since is None and not math.isfinite(result.loss):
            self.diverged_since = {"epoch": epoch, "reason": f"held-out loss {result.loss}"}
        averaged, beside = {}, ""
        if result.loss_averaged_statistics is not None:
            loss = result.loss_averaged_statistics
            averaged = {"heldout_loss_averaged_statistics": finite(loss)}
            beside = f" (with averaged statistics: {loss:.4f})"
        perplexity, shown = {}, ""
        if result.perplexity is not None:
            perplexity = {"heldout_perplexity": finite(result.perplexity)}
            shown = f", perplexity {result.perplexity:.2f}"
        self._write(
            "evaluation",
            epoch=epoch,
            heldout_loss=finite(result.loss),
            heldout_accuracy=result.accuracy,
            **perplexity,
            **averaged,
            **self.totals(),
        )
        if self._file:
            self._display.line(
                f"epoch {epoch}/{self._epochs}: held-out loss {result.loss:.4f}{beside}{shown} "
                f"(class prior {result.prior_loss:.4f}), accuracy {100 * result.accuracy:.2f} %"
            )

    def totals(self) -> dict[str, Any]:
        """Totals since the run began: seconds and rounds of this rank, mean bytes per learner."""
        sent = (
            self._bytes_before
            + self.world.comm.allreduce(self.traffic.bytes_sent, MPI.SUM) / self.world.size
        )
        seconds = dict(self.watch.seconds)
        agreeing = seconds.pop("agree", 0.0)
        seconds["communicate"] = self.traffic.seconds
        seconds["optimizer"] = max(0.0, agreeing - self.traffic.seconds)
        return {
            "rounds": self._rounds_before + self.traffic.rounds,
            "bytes_sent": round(sent),
            "seconds": {name: round(value, 4) for name, value in sorted(seconds.items())},
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if it had not been stopped. Collective.

        Losses not yet reported are reported first, so none is lost with the process.
        """
        self._report()
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        return {
            "seconds": {**self.watch.seconds, "communicate": self.traffic.seconds},
            "rounds": self._rounds_before + self.traffic.rounds,
            "bytes_sent": self.totals()["bytes_sent"],
            "file_bytes": self._file.tell() if self._file else 0,
            "heldout": self.heldout,
            "last": self._last,
        }

    def close(self) -> None:
        """Closes files and clears the display."""
        if self._file:
            self._file.close()
            self._board.close()
            self._display.close()

    def _report(self) -> None:
        if not self._losses:
            return
        epoch, step, rate = self._last
        losses = torch.stack(self._losses).double().cpu().numpy()
        self._losses.clear()
        self.world.comm.Allreduce(MPI.IN_PLACE, losses, MPI.SUM)
        losses /= self.world.size
        first = step + 1 - len(losses)
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad) and self.diverged_since is None:
            self.diverged_since = {
                "epoch": epoch + 1,
                "step": epoch * self._steps_per_epoch + first + int(bad[0]) + 1,
                "reason": f"training loss {losses[bad[0]]}",
            }
        self._write(
            "train",
            epoch=round(epoch + (step + 1) / self._steps_per_epoch, 6),
            loss=finite(float(losses.mean())),
            learning_rate=rate,
            **({"loss_scale": self._loss_scale.value} if self._loss_scale else {}),
            **self.totals(),
        )
        if self._file:
            self._display.step(epoch, step + 1, float(losses[-1]), rate)

    def _write(self, kind: str, **values: Any) -> None:
        if self._file:
            epoch, steps, _ = self._last
            step = epoch * self._steps_per_epoch + steps + 1
            values["samples"] = step * self._global_batch
            record = {"kind": kind, "time": round(time.time(), 3), "step": step, **values}
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
            self._board.write(step, kind, values)
