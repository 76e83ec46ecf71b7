"""Computes what each run needed to reach a target (paper B fig. 1, tables 1, 9, 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcddl.common.errors import UserError
from hpcddl.common.table import aligned
from hpcddl.run.records import Run, training_seconds


@dataclass(frozen=True)
class Target:
    """A held-out loss of at most, or an accuracy of at least, `value`."""

    quantity: str  # loss or accuracy
    value: float

    def reached_by(self, run: Run) -> dict[str, Any] | None:
        """Finds the first evaluation that reaches the target, or None; there is one per epoch."""
        for evaluation in run.evaluations:
            found = evaluation[f"heldout_{self.quantity}"]
            if found is None:
                continue
            if found <= self.value if self.quantity == "loss" else found >= self.value:
                return evaluation
        return None


def parse_target(text: str) -> Target:
    """Parses `loss=X` or `accuracy=Y`.

    Raises:
        UserError: neither, or not a number.
    """
    quantity, _, value = text.partition("=")
    try:
        if quantity in ("loss", "accuracy"):
            return Target(quantity, float(value))
    except ValueError:
        pass
    raise UserError(f"--target {text}: must be loss=X or accuracy=Y, with a number")


COLUMNS = ("run", "learners", "epoch", "samples", "updates", "rounds", "MiB", "seconds", "x")


def target_rows(runs: Sequence[Run], target: Target) -> list[list[str]]:
    """Lists for each run what `COLUMNS` name, "-" where it never got there; x is the speed-up."""
    start = target.reached_by(_base(runs))
    rows = []
    for run in runs:
        found = target.reached_by(run)
        row = [str(run.folder), str(run.summary["learners"] or "-")]
        if found is None:
            rows.append([*row, *["-"] * 7])
            continue
        seconds = training_seconds(found)
        speedup = f"{training_seconds(start) / seconds:.2f}" if start else "-"
        rows.append(
            [
                *row,
                str(found["epoch"]),
                str(found["samples"]),
                str(found["step"]),
                str(found["rounds"]),
                f"{found['bytes_sent'] / 2**20:.1f}",
                f"{seconds:.1f}",
                speedup,
            ]
        )
    return rows


def target_head(runs: Sequence[Run], target: Target) -> str:
    """Says in one line what the rows are about."""
    sign = "<=" if target.quantity == "loss" else ">="
    return (
        f"to a held-out {target.quantity} {sign} {target.value:g}; "
        f"x: speed-up over {_base(runs).folder}"
    )


def target_table(runs: Sequence[Run], target: Target) -> str:
    """Epochs, samples, updates, rounds, bytes and seconds to the target, and the speed-up."""
    rows = [list(COLUMNS), *target_rows(runs, target)]
    return "\n".join([target_head(runs, target), *aligned(rows, left=1)])


def _base(runs: Sequence[Run]) -> Run:
    """Finds the base of speed-ups: the first run of a single learner, else the first run."""
    return next((run for run in runs if run.summary["learners"] == 1), runs[0])
