"""What a panel of paper A's figure 2 came to: a table, files, and the paper's statements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from hpcddl.common.study import StudyFolder, nulled, spread, text_table
from hpcddl.reproduce.fig2_run import PanelRun, PanelSetting

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
    statements: Callable[[PanelStudy], list[str]]


@dataclass(frozen=True)
class PanelStudy:
    """Every run of a panel, and what they were made with."""

    panel: Panel
    setting: PanelSetting
    data: str
    samples: int
    updates: int
    runs: dict[str, list[PanelRun]]  # by algorithm, a run per seed
    tried: dict[float, float]  # SSGD*'s standard deviations -> training loss, the best first
    search_seeds: int

    def converged(self, algorithm: str) -> int:
        """Counts the seeds that converged."""
        return sum(
            math.isfinite(run.loss) and run.test_error < CONVERGED_ERROR
            for run in self.runs[algorithm]
        )

    def medians(self, value: Callable[[PanelRun], float]) -> dict[str, float]:
        """Each algorithm's median over the seeds; what is not a number counts as the highest."""
        return {name: spread([value(run) for run in runs])[0] for name, runs in self.runs.items()}

    def early(self, run: PanelRun) -> float:
        """Mean alpha_e / alpha at the beginning."""
        return self._ratio(run, 0, EARLY)

    def late(self, run: PanelRun) -> float:
        """Mean alpha_e / alpha in the later part."""
        return self._ratio(run, LATE, 1)

    def _ratio(self, run: PanelRun, begin: float, end: float) -> float:
        """Mean alpha_e / alpha over the part of the run from `begin` to `end`, 0 .. 1."""
        part = [
            m.effective_rate / self.setting.rate
            for m in run.measurements
            if begin * self.updates <= m.step < end * self.updates
        ]
        return fmean(part) if part else math.nan


def error_percent(run: PanelRun) -> float:
    """The last test error in percent."""
    return 100 * run.test_error


HEAD = (
    "algorithm", "noise std", "seeds", "converged", "loss", "least", "greatest", "test error %",
    "least", "greatest", "alpha_e/alpha early", "late", "paper",
)  # fmt: skip


def rows(study: PanelStudy) -> list[list[Any]]:
    """One per algorithm: medians and ranges over the seeds; None where a number is not finite."""
    early, late = study.medians(study.early), study.medians(study.late)
    made = []
    for algorithm, runs in study.runs.items():
        row: list[Any] = [algorithm, runs[0].std or None, len(runs), study.converged(algorithm)]
        row += [*spread([run.loss for run in runs]), *spread(list(map(error_percent, runs)))]
        row += [early[algorithm], late[algorithm], study.panel.paper[algorithm]]
        made.append(nulled(row))
    return made


def described(study: PanelStudy) -> str:
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


def _searched(study: PanelStudy) -> list[str]:
    if not study.tried:
        return []
    tried = ", ".join(f"{std:g}: {loss:.3g}" for std, loss in sorted(study.tried.items()))
    seeds = f"median of {study.search_seeds} seeds"
    return [f"SSGD* by noise std, final training loss ({seeds}): {tried}"]


def report(study: PanelStudy, folder: StudyFolder) -> None:
    """Prints the table and the statements; writes table.csv, and results.json with every run."""
    found, statements = rows(study), study.panel.statements(study)
    table = [*text_table(HEAD, found, ".3g"), described(study), *_searched(study)]
    print("\n".join(table), *statements, sep="\n\n")
    folder.write_csv("table.csv", [HEAD, *found])
    said = {
        "panel": study.panel.name,
        "learners": study.panel.learners,
        "topology": study.panel.topology,
        **asdict(study.setting),
        "data": study.data,
        "samples": study.samples,
        "updates": study.updates,
        "converged_error": CONVERGED_ERROR,
        "statements": statements,
        "search": [{"std": std, "loss": loss} for std, loss in study.tried.items()],
        "search_seeds": study.search_seeds,
        "runs": [
            {"algorithm": algorithm, **asdict(run)}
            for algorithm, runs in study.runs.items()
            for run in runs
        ],
    }
    folder.write_json("results.json", said)
