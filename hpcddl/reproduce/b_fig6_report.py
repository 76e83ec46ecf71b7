"""What the study of paper B's figure 6 found: a table, files, and the paper's statements."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from math import inf, isinf
from pathlib import Path
from typing import Any

from hpcddl.common.files import write_whole
from hpcddl.reproduce.rate_search import Trial
from hpcddl.reproduce.target import Setting

_FEW = 16  # the paper's "small number of workers": our reading


@dataclass(frozen=True)
class Result:
    """One combination: every rate tried, the best first."""

    setting: Setting
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The trial of the best rate."""
        return self.trials[0]


@dataclass(frozen=True)
class Study:
    """All combinations, and what they were measured with."""

    results: list[Result]
    at_learners: int
    at_batch: int
    round_cost: float
    target: float
    limit: float
    highest_rate: float
    seeds: int
    lowest: float
    samples: int
    l2: float

    def costs(self, setting: Setting) -> tuple[float, float, float]:
        """Least, median and greatest time over the seeds; inf where the target was not reached."""
        result = next(r for r in self.results if r.setting == setting)
        numbers = min(result.best.iterations), result.best.median, max(result.best.iterations)
        low, middle, high = (setting.cost(n, self.round_cost) for n in numbers)
        return low, middle, high

    def panel_a(self) -> list[Setting]:
        """Picks the settings of `at_learners`, with any batch and steps."""
        return [r.setting for r in self.results if r.setting.learners == self.at_learners]

    def panel_b(self) -> list[Setting]:
        """Picks the settings of `at_batch` and at least two learners, in their order."""
        settings = [r.setting for r in self.results]
        chosen = [s for s in settings if s.batch == self.at_batch and s.learners > 1]
        return sorted(chosen, key=lambda s: (s.learners, s.steps))

    def speedup(self, setting: Setting) -> float:
        """Over one learner with the same local batch, which never communicates; 0: not reached."""
        return self.costs(Setting(1, setting.batch, 1))[1] / self.costs(setting)[1]


HEAD = (
    "panel", "K", "B_loc", "H", "rate", "iterations", "rounds", "gradients per learner",
    "time", "least", "greatest", "time / best of panel", "speed-up",
)  # fmt: skip


def rows(study: Study) -> list[list[Any]]:
    """A row per combination and panel, medians over the seeds; None where nothing is to be said."""
    made = []
    for panel, settings in (("a", study.panel_a()), ("b", study.panel_b())):
        if panel == "b":
            settings = [Setting(1, study.at_batch, 1), *settings]
        best = min(study.costs(s)[1] for s in settings)
        for setting in settings:
            trial = next(r.best for r in study.results if r.setting == setting)
            row: list[Any] = [panel, setting.learners, setting.batch, setting.steps]
            if isinf(trial.median):
                made.append([*row, *[None] * (len(HEAD) - len(row))])
                continue
            least, middle, greatest = study.costs(setting)
            rounds, gradients = setting.rounds(trial.median), trial.median * setting.batch
            row += [trial.rate, trial.median, rounds, gradients, middle, least, _finite(greatest)]
            made.append([*row, middle / best, study.speedup(setting) if panel == "b" else None])
    return made


def table(study: Study) -> str:
    """The rows in aligned columns, and what they were measured with below."""
    texts = [list(HEAD), *([_text(value) for value in row] for row in rows(study))]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in texts
    ]
    return "\n".join(
        [
            *lines,
            f"medians of {study.seeds} data orders, rates up to {study.highest_rate:g}; "
            f"time in gradient computations, {study.round_cost:g} per round; "
            f"target f - f* <= {study.target:g}, f* = {study.lowest:.10f}, N = {study.samples}, "
            f"l2 = 1/N; -: not reached by {study.limit:g}",
        ]
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and value < 1000 and not value.is_integer():
        return f"{value:.2f}"
    return value if isinstance(value, str) else f"{value:,.0f}"


def statements(study: Study) -> list[str]:
    """What the paper says of its figure, and whether it is so here."""
    return [*_statement_a(study), *_statement_b(study)]


def _statement_a(study: Study) -> list[str]:
    said = []
    k, known = study.at_learners, set(study.panel_a())
    for batch, factor in ((64, 2), (256, 3)):
        one, other = Setting(k, 16, 16), Setting(k, batch, 1)
        claim = (
            f"paper: at K = 16 local SGD (16, 16) is more than {factor}x faster than ({batch}, 1)"
        )
        if k != 16 or not {one, other} <= known:
            said.append(f"{claim}\nhere:  not in this study")
            continue
        if isinf(study.costs(one)[1]):
            said.append(f"{claim}\nhere:  no: (16, 16) does not reach the target")
            continue
        ratio = study.costs(other)[1] / study.costs(one)[1]
        said.append(f"{claim}\nhere:  {'yes' if ratio > factor else 'no'}: {ratio:.2f}x")
    return said


def advantage(study: Study, learners: int) -> float:
    """Speed-up of H = 16 over the best of the other H."""
    speedups = {s.steps: study.speedup(s) for s in study.panel_b() if s.learners == learners}
    own, others = speedups.pop(16), max(speedups.values())
    if not others:
        return inf if own else 0.0
    return own / others


def _statement_b(study: Study) -> list[str]:
    best = "paper: H = 16 has the best speed-up on a small number of learners"
    fades = "paper: that advantage diminishes for very large K"
    numbers = sorted({s.learners for s in study.panel_b()})
    steps = {s.steps for s in study.panel_b()}
    few = [k for k in numbers if k <= _FEW]
    if 16 not in steps or len(steps) < 2 or not few or few == numbers:
        return [f"{text}\nhere:  not in this study" for text in (best, fades)]
    gained = {k: advantage(study, k) for k in numbers}
    measured = ", ".join(f"{gained[k]:.2f}" for k in few)
    holds = all(gained[k] > 1 for k in few)
    peak = max(gained[k] for k in few)
    return [
        f"{best}\nhere:  {'yes' if holds else 'no'} for K <= {_FEW}: "
        f"{measured} times the best other H at K = {', '.join(map(str, few))}",
        f"{fades}\nhere:  {'yes' if gained[numbers[-1]] < peak else 'no'}: "
        f"{peak:.2f} at most for K <= {_FEW}, {gained[numbers[-1]]:.2f} at K = {numbers[-1]}",
    ]


def write(study: Study, folder: Path) -> None:
    """table.csv with the rows, results.json with every rate tried."""
    text = io.StringIO()
    csv.writer(text).writerows([HEAD, *rows(study)])
    write_whole(folder / "table.csv", text.getvalue().encode())
    results = [
        {
            "learners": r.setting.learners,
            "local_batch": r.setting.batch,
            "local_steps": r.setting.steps,
            "trials": [
                {
                    "rate": trial.rate,
                    "iterations": [_finite(n) for n in trial.iterations],
                    "limit": trial.limit,
                }
                for trial in r.trials
            ],
        }
        for r in study.results
    ]
    said = {
        "target": study.target,
        "round_cost": study.round_cost,
        "limit": study.limit,
        "highest_rate": study.highest_rate,
        "seeds": study.seeds,
        "lowest": study.lowest,
        "samples": study.samples,
        "l2": study.l2,
        "statements": statements(study),
        "combinations": results,
    }
    write_whole(folder / "results.json", json.dumps(said, indent=1).encode())


def _finite(number: float) -> float | None:
    return None if isinf(number) else number
