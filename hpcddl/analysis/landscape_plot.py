"""The pictures of landscapes: contours side by side, or profiles in one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcddl.analysis.landscape_report import described
from hpcddl.analysis.surface import Landscape, SurfacePlan
from hpcddl.common.colours import COLOURS, STYLES

CONTOURS = 12
"""About so many, where their spacing is not given."""
MOST_CONTOURS = 200
"""More would be a black picture: only the lowest are drawn."""


def draw(
    found: Sequence[Landscape], plan: SurfacePlan, folder: Path, spacing: float | None, log: bool
) -> None:
    """Draws landscape.png and .pdf; with `log`, log10 of the loss, and `spacing` is of that."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if plan.directions:
        figure = _profiles(plt, found, plan, log)
    else:
        figure = _contours(plt, found, plan, spacing, log)
    width = int(figure.get_size_inches()[0] * 17)
    figure.supxlabel("\n".join(textwrap.wrap(described(found, plan), width)), fontsize=8)
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"landscape.{suffix}", dpi=150)
    plt.close(figure)


def levels(least: float, greatest: float, spacing: float | None) -> NDArray[np.float64]:
    """Multiples of `spacing`, or of a round number, from below `least` to above `greatest`."""
    if spacing is None:
        spacing = round_step((greatest - least) / CONTOURS)
    first, last = floor(least / spacing), ceil(greatest / spacing)
    last = min(max(last, first + 1), first + MOST_CONTOURS)
    return spacing * np.arange(first, last + 1, dtype=np.float64)


def round_step(step: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below `step`; 1 for 0."""
    if not step > 0:
        return 1.0
    power = 10.0 ** floor(log10(step))
    return next(float(f"{m * power:.3g}") for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _drawn(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """The loss, or its log10; NaN, which is drawn blank, where it is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.log10(values) if log else values
    return np.where(np.isfinite(drawn), drawn, np.nan)


def _contours(
    plt: Any, found: Sequence[Landscape], plan: SurfacePlan, spacing: float | None, log: bool
) -> Any:
    columns = min(len(found), 3)
    lines = ceil(len(found) / columns)
    figure, axes = plt.subplots(
        *(lines, columns),
        figsize=(4.2 * columns + 1.2, 4.5 * lines + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    surfaces = [_drawn(landscape.loss, log) for landscape in found]
    known = np.concatenate([surface[np.isfinite(surface)] for surface in surfaces])
    at = levels(known.min(), known.max(), spacing) if known.size else np.arange(2.0)
    beyond = "max" if known.size and at[-1] < known.max() else "neither"
    for axis, landscape, surface in zip(axes.flat, found, surfaces, strict=False):
        masked = np.ma.masked_invalid(surface.T)
        filled = axis.contourf(plan.along, plan.along, masked, at, cmap="cividis", extend=beyond)
        axis.contour(plan.along, plan.along, masked, at, colors="white", linewidths=0.5)
        axis.plot(0, 0, "+", color="white", markersize=10, markeredgewidth=1.5)
        axis.set_title(f"{landscape.name}: {_summary(landscape)}", fontsize=10)
        axis.set_box_aspect(1)
        axis.locator_params(nbins=5)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("along the first direction")
    for axis in axes[:, 0]:
        axis.set_ylabel("along the second direction")
    name = "log$_{10}$ of the loss" if log else "loss (nats)"
    step = at[1] - at[0]
    figure.colorbar(filled, ax=axes, label=f"{name}, contours {step:g} apart", shrink=0.9)
    return figure


def _profiles(plt: Any, found: Sequence[Landscape], plan: SurfacePlan, log: bool) -> Any:
    figure, (loss, error) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for i, landscape in enumerate(found):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        label = f"{landscape.name}: {_summary(landscape)}"
        for axis, values in ((loss, _drawn(landscape.loss, log)), (error, 100 * landscape.error)):
            axis.plot(plan.along, values.T, color=colour, linewidth=0.6, alpha=0.4)
            middle = np.median(values, axis=0)
            axis.plot(plan.along, middle, style, color=colour, linewidth=2.2, label=label)
    loss.set_ylabel("log$_{10}$ of the loss" if log else "loss (nats)")
    error.set_ylabel("error (%)")
    for axis in (loss, error):
        axis.set_xlabel("along the direction (thick: median)")
        axis.grid(alpha=0.3)
    loss.legend(loc="upper center", fontsize=9)
    return figure


def _summary(landscape: Landscape) -> str:
    return f"{landscape.centre[0]:.3f} at w$_a$, mean rise {landscape.mean_rise:.2g}"
