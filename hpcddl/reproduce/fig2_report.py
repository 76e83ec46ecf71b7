"""What a panel of paper A's figure 2 came to: a table, files, and the paper's statements."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from hpcddl.common.files import write_whole
from hpcddl.reproduce.fig2_run import Run, Setting

CONVERGED_ERROR = 0.1
"""A run has converged when its loss is finite and its last test error below this (our bound)."""
EARLY, LATE = 0.1, 0.5
"""Parts of a run in which alpha_e is meaned: before and after so much of it."""


@dataclass(frozen=True)
class Panel:
    """What the paper sets, and what its text says came out."""

    name: str
    learners: int
    rate: float
    topology: dict[str, Any]  # of DPSGD
    updates: int  # of each run: ours
    paper: dict[str, str]  # by algorithm
    statements: Callable[[Study], list[str]]


@dataclass(frozen=True)
class Study:
    """Every run of a panel, and what they were made with."""

    panel: Panel
    setting: Setting
    data: str
    samples: int
    updates: int
    runs: dict[str, list[Run]]  # by algorithm, a run per seed
    tried: dict[float, float]  # SSGD*'s standard deviations -> training loss, the best first
    search_seeds: int

    def ratio(self, run: Run, begin: float, end: float) -> float:
        """Mean alpha_e / alpha over the part of the run from `begin` to `end`, 0 .. 1."""
        part = [
            m.effective_rate / self.setting.rate
            for m in run.measurements
            if begin * self.updates <= m.step < end * self.updates
        ]
        return fmean(part) if part else math.nan

    def converged(self, algorithm: str) -> int:
        """How many seeds."""
        return sum(map(has_converged, self.runs[algorithm]))

    def middle(self, algorithm: str, value: Callable[[Run], float]) -> float:
        """The median over the seeds; what is not a number counts as the highest."""
        return _spread([value(run) for run in self.runs[algorithm]])[1]

    def early(self, run: Run) -> float:
        """Mean alpha_e / alpha at the beginning."""
        return self.ratio(run, 0, EARLY)

    def late(self, run: Run) -> float:
        """Mean alpha_e / alpha in the later part."""
        return self.ratio(run, LATE, 1)

    def noise(self, run: Run) -> float:
        """Mean Delta."""
        return fmean(m.noise for m in run.measurements)


def verdict(claim: str, holds: bool, measured: str) -> str:
    """What the paper says, whether it is so here, and by which numbers."""
    return f"paper: {claim}\nhere:  {'yes' if holds else 'no'}: {measured}"


def has_converged(run: Run) -> bool:
    """Whether its loss is finite and its last test error below the bound."""
    return math.isfinite(run.loss) and run.error < CONVERGED_ERROR


HEAD = (
    "algorithm", "noise std", "seeds", "converged", "loss", "least", "greatest", "test error %",
    "least", "greatest", "alpha_e/alpha early", "late", "paper",
)  # fmt: skip


def rows(study: Study) -> list[list[Any]]:
    """One per algorithm: medians and ranges over the seeds; None where a number is not finite."""
    made = []
    for algorithm, runs in study.runs.items():
        least, loss, greatest = _spread([run.loss for run in runs])
        low, error, high = _spread([100 * run.error for run in runs])
        row: list[Any] = [algorithm, runs[0].std or None, len(runs), study.converged(algorithm)]
        row += [loss, least, greatest, error, low, high]
        row += [study.middle(algorithm, study.early), study.middle(algorithm, study.late)]
        made.append([*map(_finite, row), study.panel.paper[algorithm]])
    return made


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median, greatest."""
    known = sorted(math.inf if math.isnan(value) else value for value in values)
    return known[0], median(known), known[-1]


def table(study: Study) -> str:
    """The rows in aligned columns, and what they were measured with below."""
    texts = [list(HEAD), *([_text(value) for value in row] for row in rows(study))]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in texts
    ]
    return "\n".join([*lines, described(study), *_searched(study)])


def described(study: Study) -> str:
    """What was run, in one line."""
    setting = study.setting
    topology = " ".join(map(str, study.panel.topology.values()))
    return (
        f"{study.data}, N = {study.samples}; n = {study.panel.learners}, {topology}, alpha = "
        f"{setting.rate:g}, nB = {setting.global_batch}, {study.updates} updates, inputs 0 .. "
        f"{255 * setting.scale:g}; loss over the training set, error of the consensus, medians and "
        f"range of seeds; early: first {EARLY:.0%} of updates, late: last {1 - LATE:.0%}; "
        f"converged: test error below {CONVERGED_ERROR:.0%}"
    )


def _searched(study: Study) -> list[str]:
    if not study.tried:
        return []
    tried = ", ".join(f"{std:g}: {loss:.3g}" for std, loss in sorted(study.tried.items()))
    seeds = f"median of {study.search_seeds} seeds"
    return [f"SSGD* by noise std, final training loss ({seeds}): {tried}"]


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(study: Study, folder: Path) -> None:
    """table.csv with the rows, results.json with every run."""
    text = io.StringIO()
    csv.writer(text).writerows([HEAD, *rows(study)])
    write_whole(folder / "table.csv", text.getvalue().encode())
    said = {
        "panel": study.panel.name,
        "learners": study.panel.learners,
        "topology": study.panel.topology,
        **asdict(study.setting),
        "data": study.data,
        "samples": study.samples,
        "updates": study.updates,
        "converged_error": CONVERGED_ERROR,
        "statements": study.panel.statements(study),
        "search": [{"std": std, "loss": _finite(loss)} for std, loss in study.tried.items()],
        "search_seeds": study.search_seeds,
        "runs": [
            {
                "algorithm": algorithm,
                "seed": run.seed,
                "std": run.std,
                "loss": _finite(run.loss),
                "test_error": run.error,
                "measurements": [
                    {key: _finite(value) for key, value in asdict(m).items()}
                    for m in run.measurements
                ],
                "test_errors": [{"step": step, "error": error} for step, error in run.errors],
            }
            for algorithm, runs in study.runs.items()
            for run in runs
        ],
    }
    write_whole(folder / "results.json", json.dumps(said, indent=1).encode())


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
