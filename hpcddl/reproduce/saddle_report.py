"""What a study of leaving a saddle came to: a table, files, and the paper's statement."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.common.files import write_whole
from hpcddl.common.table import aligned
from hpcddl.reproduce.saddle_problem import Array, Saddle, Setting, median_time


@dataclass(frozen=True)
class Case:
    """One algorithm on one loss with one global batch, a time of leaving per seed."""

    saddle: Saddle
    setting: Setting
    algorithm: str
    noise_std: float  # of SSGD*
    kick: float | None  # predicted variance of the noise along y per update; None: not predicted
    paths: Callable[[Iterable[int]], Iterator[Array]]  # of the consensus, by seeds
    times: Array = field(default_factory=lambda: np.empty(0))  # (S,) updates; inf: it stays

    @property
    def global_batch(self) -> int:
        """nB."""
        return self.setting.learners * self.setting.local_batch

    @property
    def control(self) -> bool:
        """Whether all samples have one Hessian, so that SSGD and DPSGD are the same."""
        return not self.saddle.kappa

    @property
    def predicted(self) -> float | None:
        """The median time in closed form."""
        if self.kick is None or self.control:
            return None
        return median_time(self.saddle, self.setting, self.kick)


@dataclass(frozen=True)
class Study:
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


def rows(study: Study) -> list[list[Any]]:
    """Times of leaving by case; None: later than the last update."""
    made = []
    for case in study.cases:
        times = np.sort(case.times)
        # Of the sorted times themselves: between a finite and an infinite one lies nothing.
        at = [round(part * (len(times) - 1)) for part in (0.5, 0.05, 0.95, 0, 1)]
        row: list[Any] = ["one Hessian" if case.control else "saddle", case.algorithm]
        row += [case.global_batch, int(np.isfinite(times).sum())]
        row += [float(times[i]) if np.isfinite(times[i]) else None for i in at]
        made.append([*row, case.predicted])
    return made


def table(study: Study) -> str:
    """The rows in aligned columns, and what they were measured with below."""
    texts = [["-" if v is None else _text(v) for v in row] for row in rows(study)]
    return "\n".join([*aligned([list(HEAD), *texts], left=2), described(study)])


def _text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def described(study: Study) -> str:
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


def statements(study: Study) -> list[str]:
    """What the paper says of its problem, and whether it is so on ours."""
    largest = {name: study.of(name)[0] for name in ("SSGD", "DPSGD")}
    medians = {name: float(np.median(case.times)) for name, case in largest.items()}
    ssgd, dpsgd = medians["SSGD"], medians["DPSGD"]
    most = study.cases[0].setting.updates
    said = [f"{time:.0f}" if isfinite(time) else f"more than {most}" for time in (dpsgd, ssgd)]
    one, other = (study.of(name, control=True)[0].times for name in ("SSGD", "DPSGD"))
    sooner = isfinite(dpsgd) and ssgd > 2 * dpsgd
    same = int((one == other).sum())
    return [
        "paper: the larger noise of DPSGD lets it escape saddle points where SSGD is stuck for "
        f"long\nhere:  {'yes' if sooner else 'no'}: medians of {said[0]} against {said[1]} updates "
        f"at nB = {largest['DPSGD'].global_batch}",
        "ours:  with one Hessian for all samples DPSGD's consensus moves as SSGD does\n"
        f"here:  {'yes' if same == len(one) else 'no'}: {same} of {len(one)} seeds leave at the "
        "same update",
    ]


def write(study: Study, folder: Path) -> None:
    """table.csv with the rows, times.csv with every seed's, results.json with the rest."""
    text = io.StringIO()
    csv.writer(text).writerows([HEAD, *rows(study)])
    write_whole(folder / "table.csv", text.getvalue().encode())
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["loss", "algorithm", "nB", "seed", "updates"])
    for case, row in zip(study.cases, rows(study), strict=True):
        times = [int(t) if isfinite(t) else None for t in case.times.tolist()]
        writer.writerows([*row[:3], seed, time] for seed, time in enumerate(times))
    write_whole(folder / "times.csv", text.getvalue().encode())
    said = {
        "topology": study.topology,
        "seeds": study.seeds,
        "statements": statements(study),
        "cases": [
            {
                "algorithm": case.algorithm,
                "saddle": asdict(case.saddle),
                "setting": asdict(case.setting),
                "noise_std": case.noise_std,
                "predicted_kick_variance": case.kick,
                **dict(zip(HEAD[3:], row[3:], strict=True)),
            }
            for case, row in zip(study.cases, rows(study), strict=True)
        ],
    }
    write_whole(folder / "results.json", json.dumps(said, indent=1).encode())
