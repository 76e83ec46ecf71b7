"""The picture of leaving a saddle: who still stays, how, by global batch; and a control."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from hpcddl.common.axes import LINES, MARKERS, medians_with_ranges, ticks_at
from hpcddl.common.study import StudyFolder
from hpcddl.reproduce.saddle_problem import staying
from hpcddl.reproduce.saddle_report import Case, SaddleStudy, described

PATHS = 5
"""Seeds whose way is drawn."""


def draw(study: SaddleStudy, folder: StudyFolder) -> None:
    """Draws four panels; each says in its title what it shows."""
    largest = [study.of(name)[0] for name in LINES]
    same = [study.of(name, control=True)[0] for name in ("SSGD", "DPSGD")]
    batch, least_batch = largest[0].setting.global_batch, same[0].setting.global_batch
    titles = [
        f"(a) nB = {batch}; dotted: in closed form",
        f"(b) nB = {batch}, {min(PATHS, study.seeds)} of the seeds",
        "(c) medians, and from 5 to 95 % of the seeds",
        f"(d) one Hessian for all samples, nB = {least_batch}: no difference",
    ]
    with folder.picture("saddle", 2, 2, figsize=(11, 8.6)) as (figure, axes):
        (curves, distances), (batches, control) = axes
        _survival(curves, largest)
        _distances(distances, largest)
        _by_batch(batches, study)
        _survival(control, same)
        for axis, title in zip(axes.flat, titles, strict=True):
            axis.set_title(title, fontsize=10)
        figure.supxlabel("\n".join(textwrap.wrap(described(study), 170)), fontsize=8)


def _survival(axis: Any, cases: Sequence[Case]) -> None:
    """Part of the seeds that is still at the saddle, by updates."""
    end = 1.1 * (max(case.known_times.max(initial=0) for case in cases) or 1.0)
    for case in cases:
        # A difference of line widths keeps a curve in sight that another one covers.
        width = 3.5 if case.algorithm == "SSGD" else 1.8
        times = case.known_times
        edges = np.concatenate([[0], times, [end]])
        part = 1 - np.minimum(np.arange(len(edges)), len(times)) / len(case.times)
        look = LINES[case.algorithm]
        axis.step(edges, part, where="post", label=case.algorithm, linewidth=width, **look)
        if case.predicted is not None and case.kick is not None:
            at = np.linspace(0, end, 300)
            chance = staying(case.saddle, case.setting, case.kick, at)
            axis.plot(at, chance, ":", color="black", linewidth=1.2)
    axis.set(xlabel="updates t", ylabel="part of the seeds still at the saddle", xlim=(0, end))
    axis.legend()


def _distances(axis: Any, cases: Sequence[Case]) -> None:
    """|y| of w_a for some seeds: a straight line where nothing but the saddle itself moves it."""
    updates = int(1.1 * max(case.known_times.max(initial=1) for case in cases))
    for case in cases:
        seeds = range(min(PATHS, len(case.times)))
        ways = np.abs(np.stack(list(islice(case.paths(seeds), updates + 1)))[..., 1])
        look = LINES[case.algorithm]
        axis.plot(ways[:, 1:], linewidth=0.8, **look)
        axis.plot(ways[:, 0], linewidth=0.8, label=case.algorithm, **look)
    left = cases[0].setting.left
    axis.axhline(left, color="black", linewidth=1)
    axis.annotate(
        "left", (1, left), xycoords=("axes fraction", "data"), va="top", ha="right", fontsize=9
    )
    away = "distance |y| of the consensus from the saddle"
    axis.set(yscale="log", xlim=(0, updates), xlabel="updates t", ylabel=away)
    axis.legend(loc="lower right")


def _by_batch(axis: Any, study: SaddleStudy) -> None:
    """Updates until the saddle is left, by global batch."""
    for i, (name, look) in enumerate(LINES.items()):
        points = []
        for case in study.of(name):
            middle, low, high = case.quantiles(0.5, 0.05, 0.95)
            # Side by side, or one bar would hide another.
            place = case.setting.global_batch * 2 ** (0.08 * (i - 1))
            points.append((place, middle, low, min(high, case.setting.updates)))
        medians_with_ranges(axis, points, marker=MARKERS[name], label=name, **look)
    ticks_at(axis, [case.setting.global_batch for case in study.of("SSGD")], base=2)
    samples = f"global batch nB of N = {study.cases[0].saddle.samples} samples"
    axis.set_ylim(bottom=0)
    axis.set(xlabel=samples, ylabel="updates until the saddle is left")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
