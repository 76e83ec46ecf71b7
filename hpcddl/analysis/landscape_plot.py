"""The pictures of landscapes: contours side by side, or profiles in one."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

from hpcddl.analysis.landscape_report import described
from hpcddl.analysis.several_runs import panels, write_below
from hpcddl.analysis.surface import Landscape, SurfacePlan
from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.common.study import StudyFolder

CONTOURS = 12
"""About so many, where their spacing is not given."""
MOST_CONTOURS = 200
"""More would be a black picture: only the lowest are drawn."""


def draw(
    found: Sequence[Landscape],
    plan: SurfacePlan,
    folder: StudyFolder,
    spacing: float | None,
    log: bool,
) -> None:
    """Draws landscape.png and .pdf; with `log`, log10 of the loss, and `spacing` is of that."""
    if plan.directions:
        _profiles(found, plan, folder, log)
    else:
        _contours(found, plan, folder, spacing, log)


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
    found: Sequence[Landscape],
    plan: SurfacePlan,
    folder: StudyFolder,
    spacing: float | None,
    log: bool,
) -> None:
    surfaces = [_drawn(landscape.loss, log) for landscape in found]
    known = np.concatenate([surface[np.isfinite(surface)] for surface in surfaces])
    at = levels(known.min(), known.max(), spacing) if known.size else np.arange(2.0)
    beyond = "max" if known.size and at[-1] < known.max() else "neither"
    below, shared = described(found, plan), {"sharex": True, "sharey": True}
    with panels(folder, "landscape", len(found), 4.5, below, **shared) as (figure, axes):
        for axis, landscape, surface in zip(axes.flat, found, surfaces, strict=False):
            field = plan.along, plan.along, np.ma.masked_invalid(surface.T), at
            filled = axis.contourf(*field, cmap="cividis", extend=beyond)
            axis.contour(*field, colors="white", linewidths=0.5)
            axis.plot(0, 0, "+", color="white", markersize=10, markeredgewidth=1.5)
            axis.set_title(f"{landscape.name}: {_summary(landscape)}", fontsize=10)
            axis.set_box_aspect(1)
            axis.locator_params(nbins=5)
        for axis in axes[-1]:
            axis.set_xlabel("along the first direction")
        for axis in axes[:, 0]:
            axis.set_ylabel("along the second direction")
        label = f"{_loss_label(log)}, contours {at[1] - at[0]:g} apart"
        figure.colorbar(filled, ax=axes, label=label, shrink=0.9)


def _profiles(
    found: Sequence[Landscape], plan: SurfacePlan, folder: StudyFolder, log: bool
) -> None:
    with folder.picture("landscape", 1, 2, figsize=(11, 4.8)) as (figure, (loss, error)):
        for i, landscape in enumerate(found):
            colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
            label = f"{landscape.name}: {_summary(landscape)}"
            values_on = (loss, _drawn(landscape.loss, log)), (error, 100 * landscape.error)
            for axis, values in values_on:
                axis.plot(plan.along, values.T, color=colour, linewidth=0.6, alpha=0.4)
                middle = np.median(values, axis=0)
                axis.plot(plan.along, middle, style, color=colour, linewidth=2.2, label=label)
        loss.set_ylabel(_loss_label(log))
        error.set_ylabel("error (%)")
        for axis in (loss, error):
            axis.set_xlabel("along the direction (thick: median)")
        loss.legend(loc="upper center", fontsize=9)
        write_below(figure, described(found, plan))


def _loss_label(log: bool) -> str:
    return "log$_{10}$ of the loss" if log else "loss (nats)"


def _summary(landscape: Landscape) -> str:
    return f"{landscape.centre[0]:.3f} at w$_a$, mean rise {landscape.mean_rise:.2g}"
