"""What the study of paper B's figure 6 found: a table, files, and the paper's statements."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isinf
from typing import Any

from hpcddl.common.finite import finite
from hpcddl.common.study import StudyFolder, spread, text_table, verdict
from hpcddl.reproduce.target import Combination
from hpcddl.tune.rate_search import RateTrial

_FEW = 16  # the paper's "small number of workers": our reading


@dataclass(frozen=True)
class Terms:
    """What all combinations were measured with, in the options' words."""

    target: float
    round_cost: float
    limit: float
    highest_rate: float
    seeds: int
    lowest: float  # f*
    samples: int
    l2: float


@dataclass(frozen=True)
class TimeStudy:
    """All combinations with every rate that was tried, the best first."""

    trials: dict[Combination, list[RateTrial]]
    at_learners: int
    at_batch: int
    terms: Terms

    @property
    def one_learner(self) -> Combination:
        """The single learner with the local batch of panel (b), which never communicates."""
        return Combination(1, self.at_batch, 1)

    def costs(self, chosen: Combination) -> tuple[float, float, float]:
        """Median, least and greatest time over the seeds; inf where the target was not reached."""
        middle, low, high = spread(self.trials[chosen][0].iterations)
        cost = self.terms.round_cost
        return chosen.cost(middle, cost), chosen.cost(low, cost), chosen.cost(high, cost)

    def panel_a(self) -> list[Combination]:
        """Picks the combinations of `at_learners`, with any batch and steps."""
        return [c for c in self.trials if c.learners == self.at_learners]

    def panel_b(self) -> list[Combination]:
        """Picks the combinations of `at_batch` and at least two learners, in their order."""
        chosen = [c for c in self.trials if c.batch == self.at_batch and c.learners > 1]
        return sorted(chosen, key=lambda c: (c.learners, c.steps))

    def speedups(self, chosen: Combination) -> tuple[float, float, float]:
        """Median, least and greatest speed-up over `one_learner`'s median; 0: not reached."""
        one = self.costs(self.one_learner)[0]
        middle, low, high = self.costs(chosen)
        return one / middle, one / high, one / low


HEAD = (
    "panel", "K", "B_loc", "H", "rate", "iterations", "rounds", "gradients per learner",
    "time", "least", "greatest", "time / best of panel", "speed-up",
)  # fmt: skip


def rows(study: TimeStudy) -> list[list[Any]]:
    """A row per combination and panel, medians over the seeds; None where nothing is to be said."""
    made = []
    panels = {"a": study.panel_a(), "b": [study.one_learner, *study.panel_b()]}
    for panel, combinations in panels.items():
        best = min(study.costs(c)[0] for c in combinations)
        for c in combinations:
            row: list[Any] = [panel, c.learners, c.batch, c.steps]
            trial = study.trials[c][0]
            if isinf(trial.median):
                row += [None] * (len(HEAD) - len(row))
            else:
                middle, least, greatest = study.costs(c)
                row += [trial.rate, trial.median, c.rounds(trial.median), trial.median * c.batch]
                row += [middle, least, finite(greatest), middle / best]
                row.append(study.speedups(c)[0] if panel == "b" else None)
            made.append(row)
    return made


def described(study: TimeStudy) -> str:
    """What was measured, in one line."""
    terms = study.terms
    return (
        f"medians of {terms.seeds} data orders, rates up to {terms.highest_rate:g}; "
        f"time in gradient computations, {terms.round_cost:g} per round; "
        f"target f - f* <= {terms.target:g}, f* = {terms.lowest:.10f}, N = {terms.samples}, "
        f"l2 = 1/N; -: not reached by {terms.limit:g}"
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value < 1000 and not value.is_integer():
        return f"{value:.2f}"
    return f"{value:,.0f}"


def statements(study: TimeStudy) -> list[str]:
    """What the paper says of its figure, and whether it is so here."""
    return [*_statements_a(study), *_statements_b(study)]


def _statements_a(study: TimeStudy) -> list[str]:
    said = []
    k, known = study.at_learners, set(study.panel_a())
    for batch, factor in ((64, 2), (256, 3)):
        one, other = Combination(k, 16, 16), Combination(k, batch, 1)
        claim = f"at K = 16 local SGD (16, 16) is more than {factor}x faster than ({batch}, 1)"
        if k != 16 or not {one, other} <= known:
            said.append(verdict(claim, None))
        elif isinf(study.costs(one)[0]):
            said.append(verdict(claim, False, "(16, 16) does not reach the target"))
        else:
            ratio = study.costs(other)[0] / study.costs(one)[0]
            said.append(verdict(claim, ratio > factor, f"{ratio:.2f}x"))
    return said


def _statements_b(study: TimeStudy) -> list[str]:
    best = "H = 16 has the best speed-up on a small number of learners"
    fades = "that advantage diminishes for very large K"
    numbers = sorted({c.learners for c in study.panel_b()})
    steps = {c.steps for c in study.panel_b()}
    few = [k for k in numbers if k <= _FEW]
    if 16 not in steps or len(steps) < 2 or not few or few == numbers:
        return [verdict(best, None), verdict(fades, None)]
    gained = {k: _advantage(study, k) for k in numbers}
    measured = ", ".join(f"{gained[k]:.2f}" for k in few)
    holds = all(gained[k] > 1 for k in few)
    peak, last = max(gained[k] for k in few), gained[numbers[-1]]
    return [
        verdict(
            best,
            holds,
            f"{measured} times the best other H at K = {', '.join(map(str, few))}",
            where=f" for K <= {_FEW}",
        ),
        verdict(
            fades,
            last < peak,
            f"{peak:.2f} at most for K <= {_FEW}, {last:.2f} at K = {numbers[-1]}",
        ),
    ]


def _advantage(study: TimeStudy, learners: int) -> float:
    """Speed-up of H = 16 over the best of the other H."""
    chosen = [c for c in study.panel_b() if c.learners == learners]
    speedups = {c.steps: study.speedups(c)[0] for c in chosen}
    own, others = speedups.pop(16), max(speedups.values())
    if not others:
        return inf if own else 0.0
    return own / others


def report(study: TimeStudy, folder: StudyFolder) -> None:
    """Prints the table and the statements; writes table.csv, and results.json with every rate."""
    found = rows(study)
    table = [*text_table(HEAD, [list(map(_text, row)) for row in found]), described(study)]
    print("\n".join(table), *statements(study), sep="\n\n")
    folder.write_csv("table.csv", [HEAD, *found])
    combinations = [
        {
            "learners": one.learners,
            "local_batch": one.batch,
            "local_steps": one.steps,
            "trials": list(map(asdict, trials)),
        }
        for one, trials in study.trials.items()
    ]
    said = {**asdict(study.terms), "statements": statements(study), "combinations": combinations}
    folder.write_json("results.json", said)
