"""What a study of leaving a saddle came to: a table, files, and the paper's statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from hpcddl.common.study import StudyFolder, nulled, text_table, verdict
from hpcddl.reproduce.saddle_problem import Array, Saddle, SaddleSetting, median_time


@dataclass(frozen=True)
class Case:
    """One algorithm on one loss with one global batch, a time of leaving per seed."""

    saddle: Saddle
    setting: SaddleSetting
    algorithm: str
    noise_std: float  # of SSGD*
    kick: float | None  # predicted variance of the noise along y per update; None: not predicted
    paths: Callable[[Iterable[int]], Iterator[Array]]  # of the consensus, by seeds
    times: Array = field(default_factory=lambda: np.empty(0))  # (S,) updates; inf: it stays

    @property
    def control(self) -> bool:
        """Whether all samples have one Hessian, so that SSGD and DPSGD are the same."""
        return not self.saddle.kappa

    @property
    def known_times(self) -> Array:
        """The times of those that left, ascending."""
        return np.sort(self.times[np.isfinite(self.times)])

    @property
    def predicted(self) -> float | None:
        """The median time in closed form."""
        if self.kick is None or self.control:
            return None
        return median_time(self.saddle, self.setting, self.kick)

    def quantiles(self, *parts: float) -> list[float]:
        """The times at which such parts of the seeds, 0 .. 1, have left."""
        # Of the sorted times themselves: between a finite and an infinite one lies nothing.
        times = np.sort(self.times)
        return [float(times[round(part * (len(times) - 1))]) for part in parts]


@dataclass(frozen=True)
class SaddleStudy:
    """All cases, the largest global batch first, the control last."""

    cases: list[Case]
    topology: str
    seeds: int

    def of(self, algorithm: str, control: bool = False) -> list[Case]:
        """The cases of one algorithm, the largest global batch first."""
        return [c for c in self.cases if c.algorithm == algorithm and c.control == control]


HEAD = (
    "loss", "algorithm", "nB", "seeds left", "median", "5 %", "95 %", "least", "greatest",
    "predicted",
)  # fmt: skip


def rows(study: SaddleStudy) -> list[list[Any]]:
    """Times of leaving by case; None: later than the last update, or not predicted."""
    made = []
    for case in study.cases:
        loss = "one Hessian" if case.control else "saddle"
        row = [loss, case.algorithm, case.setting.global_batch, len(case.known_times)]
        times = nulled(case.quantiles(0.5, 0.05, 0.95, 0, 1))
        made.append([*row, *times, case.predicted])
    return made


def described(study: SaddleStudy) -> str:
    """What was run, in one line."""
    case, control = study.cases[0], study.cases[-1].saddle
    saddle, setting = case.saddle, case.setting
    stds = ", ".join(f"{c.noise_std:.2g}" for c in study.of("SSGD*"))
    return (
        f"updates until |y| of the consensus is above {setting.left:g}, {study.seeds} seeds; "
        f"n = {setting.learners}, {study.topology}, alpha = {setting.rate:g}, N = {saddle.samples} "
        f"samples, start N(0, {setting.start:g}^2); a = {saddle.a:g}, b = {saddle.b:g}, sigma = "
        f"{saddle.sigma:g}, kappa = {saddle.kappa:g}; one Hessian: c = "
        f"{control.c:g}, kappa = {control.kappa:g}, tau = {control.tau:g}; SSGD*'s standard "
        f"deviation is that of DPSGD's learners about their consensus: {stds}; -: not left within "
        f"{setting.updates}, or not predicted"
    )


def statements(study: SaddleStudy) -> list[str]:
    """What the paper says of its problem, and whether it is so on ours."""
    setting = study.cases[0].setting
    dpsgd, ssgd = (float(np.median(study.of(name)[0].times)) for name in ("DPSGD", "SSGD"))
    said = [
        f"{time:.0f}" if isfinite(time) else f"more than {setting.updates}"
        for time in (dpsgd, ssgd)
    ]
    one, other = (study.of(name, control=True)[0].times for name in ("SSGD", "DPSGD"))
    same = int((one == other).sum())
    return [
        verdict(
            "the larger noise of DPSGD lets it escape saddle points where SSGD is stuck for long",
            isfinite(dpsgd) and ssgd > 2 * dpsgd,
            f"medians of {said[0]} against {said[1]} updates at nB = {setting.global_batch}",
        ),
        verdict(
            "with one Hessian for all samples DPSGD's consensus moves as SSGD does",
            same == len(one),
            f"{same} of {len(one)} seeds leave at the same update",
            whose="ours",
        ),
    ]


def report(study: SaddleStudy, folder: StudyFolder) -> None:
    """Prints the table and statements; times.csv has every seed's time, results.json the rest."""
    found = rows(study)
    table = [*text_table(HEAD, found, ".0f", left=2), described(study)]
    print("\n".join(table), *statements(study), sep="\n\n")
    folder.write_csv("table.csv", [HEAD, *found])
    every = [("loss", "algorithm", "nB", "seed", "updates")]
    for case, row in zip(study.cases, found, strict=True):
        times = (int(t) if isfinite(t) else None for t in case.times.tolist())
        every += [(*row[:3], seed, time) for seed, time in enumerate(times)]
    folder.write_csv("times.csv", every)
    cases = [
        {
            "algorithm": case.algorithm,
            "saddle": asdict(case.saddle),
            "setting": asdict(case.setting),
            "noise_std": case.noise_std,
            "predicted_kick_variance": case.kick,
            **dict(zip(HEAD[3:], row[3:], strict=True)),
        }
        for case, row in zip(study.cases, found, strict=True)
    ]
    said = {"topology": study.topology, "seeds": study.seeds, "statements": statements(study)}
    folder.write_json("results.json", {**said, "cases": cases})
