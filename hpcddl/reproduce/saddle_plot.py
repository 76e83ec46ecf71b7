"""The picture of leaving a saddle: who still stays, how, by global batch; and a control."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.common.colours import COLOURS
from hpcddl.reproduce.saddle_problem import staying
from hpcddl.reproduce.saddle_report import Case, Study, described

_COLOURS = {"SSGD": COLOURS[1], "SSGD*": COLOURS[0], "DPSGD": COLOURS[2]}
_STYLES = {"SSGD": "-", "SSGD*": "-.", "DPSGD": "--"}
_MARKERS = {"SSGD": "o", "SSGD*": "^", "DPSGD": "s"}
PATHS = 5
"""Seeds whose way is drawn."""


def draw(study: Study, folder: Path) -> None:
    """saddle.png and .pdf."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8.6), layout="constrained")
    (curves, distances), (batches, control) = axes
    largest = [study.of(name)[0] for name in _COLOURS]
    _survival(curves, largest)
    curves.set_title(f"(a) nB = {largest[0].global_batch}; dotted: in closed form", fontsize=10)
    _distances(distances, largest)
    distances.set_title(
        f"(b) nB = {largest[0].global_batch}, {min(PATHS, study.seeds)} of the seeds", fontsize=10
    )
    _by_batch(batches, study)
    batches.set_title("(c) medians, and from 5 to 95 % of the seeds", fontsize=10)
    same = [study.of(name, control=True)[0] for name in ("SSGD", "DPSGD")]
    _survival(control, same)
    control.set_title(
        f"(d) one Hessian for all samples, nB = {same[0].global_batch}: no difference", fontsize=10
    )
    figure.supxlabel("\n".join(textwrap.wrap(described(study), 170)), fontsize=8)
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"saddle.{suffix}", dpi=150)
    plt.close(figure)


def _survival(axis: Any, cases: Sequence[Case]) -> None:
    """Part of the seeds that is still at the saddle, by updates."""
    finite = [case.times[np.isfinite(case.times)] for case in cases]
    last = max((float(times.max()) for times in finite if len(times)), default=1.0)
    for case, times in zip(cases, finite, strict=True):
        name = case.algorithm
        # A difference of line widths keeps a curve in sight that another one covers.
        width = 3.5 if name == "SSGD" else 1.8
        edges = np.concatenate([[0], np.sort(times), [1.1 * last]])
        part = 1 - np.minimum(np.arange(len(edges)), len(times)) / len(case.times)
        style = {"color": _COLOURS[name], "linestyle": _STYLES[name], "linewidth": width}
        axis.step(edges, part, where="post", label=name, **style)
        if case.predicted is not None and case.kick is not None:
            at = np.linspace(0, 1.1 * last, 300)
            chance = staying(case.saddle, case.setting, case.kick, at)
            axis.plot(at, chance, ":", color="black", linewidth=1.2)
    axis.set_xlabel("updates t")
    axis.set_ylabel("part of the seeds still at the saddle")
    axis.set_xlim(0, 1.1 * last)
    axis.grid(alpha=0.3)
    axis.legend()


def _distances(axis: Any, cases: Sequence[Case]) -> None:
    """|y| of w_a for some seeds: a straight line where nothing but the saddle itself moves it."""
    finite = [case.times[np.isfinite(case.times)].max(initial=1) for case in cases]
    updates = int(1.1 * max(finite))
    for case in cases:
        seeds = range(min(PATHS, len(case.times)))
        ways = np.stack(list(islice(case.paths(seeds), updates + 1)))
        style = {"color": _COLOURS[case.algorithm], "linestyle": _STYLES[case.algorithm]}
        axis.plot(np.abs(ways[:, 1:, 1]), linewidth=0.8, **style)
        axis.plot(np.abs(ways[:, 0, 1]), linewidth=0.8, label=case.algorithm, **style)
    left = cases[0].setting.left
    axis.axhline(left, color="black", linewidth=1)
    axis.annotate(
        "left", (1, left), xycoords=("axes fraction", "data"), va="top", ha="right", fontsize=9
    )
    axis.set_yscale("log")
    axis.set_xlim(0, updates)
    axis.set_xlabel("updates t")
    axis.set_ylabel("distance |y| of the consensus from the saddle")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")


def _by_batch(axis: Any, study: Study) -> None:
    for i, (name, colour) in enumerate(_COLOURS.items()):
        points = []
        for case in study.of(name):
            times = np.sort(case.times)
            low, middle, high = (times[round(q * (len(times) - 1))] for q in (0.05, 0.5, 0.95))
            if np.isfinite(middle):
                high = min(high, case.setting.updates)
                # Side by side, or one bar would hide another.
                at = case.global_batch * 2 ** (0.08 * (i - 1))
                points.append((at, middle, middle - low, high - middle))
        if points:
            places, middles, below, above = zip(*points, strict=True)
            axis.errorbar(
                places,
                middles,
                (below, above),
                color=colour,
                linestyle=_STYLES[name],
                marker=_MARKERS[name],
                capsize=3,
                label=name,
            )
    sizes = [case.global_batch for case in study.of("SSGD")]
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel(f"global batch nB of N = {study.cases[0].saddle.samples} samples")
    axis.set_ylabel("updates until the saddle is left")
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
