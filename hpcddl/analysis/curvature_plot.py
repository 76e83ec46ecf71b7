"""The pictures of curvatures: spectral densities, and heat maps of |lambda_min| / |lambda_max|."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.analysis.curvature_report import described
from hpcddl.analysis.spectral_density import smoothed
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan
from hpcddl.common.colours import COLOURS, STYLES

SIGMA = 1 / 200
"""Width of the Gaussians that smooth a density, relative to that of the runs' spectra."""
_POINTS = 2000


def draw_density(found: Sequence[Curvature], plan: SpectrumPlan, folder: Path) -> list[str]:
    """Draws density.png and .pdf, all runs in one, smoothed alike; returns the files' names."""
    plt = _pyplot()
    nodes = np.concatenate([probe.nodes for run in found for probe in run.spectrum])
    width = float(np.ptp(nodes)) or 1.0
    sigma = SIGMA * width
    at = np.linspace(nodes.min() - width / 20, nodes.max() + width / 20, _POINTS)
    figure, axis = plt.subplots(figsize=(8, 4.8), layout="constrained")
    highest = 0.0
    for i, curvature in enumerate(found):
        density = smoothed(curvature.spectrum, at, sigma)
        highest = max(highest, density.max())
        axis.plot(
            at,
            density,
            STYLES[i % len(STYLES)],
            color=COLOURS[i % len(COLOURS)],
            label=f"{curvature.name}: {curvature.least:.3g} to {curvature.top[0]:.3g}",
        )
    axis.set_yscale("log")
    # Less than a hundredth of one eigenvalue, spread over sigma, is the Gaussians' tail.
    least = 0.01 / (max(run.facts["weights"] for run in found) * sigma)
    axis.set_ylim(least, 3 * highest)
    axis.set_xlabel(f"eigenvalue (smoothed by Gaussians of standard deviation {sigma:.2g})")
    axis.set_ylabel("density of the Hessian's eigenvalues")
    axis.grid(alpha=0.3)
    axis.legend(title=r"run: $\lambda_{min}$ to $\lambda_{max}$")
    return _save(plt, figure, described(found, plan), folder, "density")


def draw_grid(found: Sequence[Curvature], plan: SpectrumPlan, folder: Path) -> list[str]:
    """Draws grid.png and .pdf, a heat map per run on one colour scale; returns their names."""
    plt = _pyplot()
    columns = min(len(found), 3)
    lines = ceil(len(found) / columns)
    figure, axes = plt.subplots(
        *(lines, columns),
        figsize=(4.2 * columns + 1.2, 4.1 * lines + 0.6),
        squeeze=False,
        layout="constrained",
    )
    ratios = [curvature.ratios for curvature in found]
    highest = max((float(r) for r in np.ravel(ratios) if r > 0), default=1.0)
    for axis, curvature, values in zip(axes.flat, found, ratios, strict=False):
        # The first direction runs to the right, as in the landscape's contours.
        image = axis.imshow(values.T, cmap="coolwarm", vmin=0, vmax=highest, origin="lower")
        for (i, j), value in np.ndenumerate(values):
            dark = abs(value / highest - 0.5) > 0.35
            axis.text(
                *(i, j, f"{value:.2f}"),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
        places = [f"{at:.2g}" for at in plan.along]
        axis.set_xticks(range(plan.grid), places)
        axis.set_yticks(range(plan.grid), places)
        axis.set_title(f"{curvature.name}: mean {values.mean():.3f}", fontsize=10)
        axis.set_xlabel("along the first direction")
        axis.set_ylabel("along the second direction")
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes, label=r"$|\lambda_{min}| / |\lambda_{max}|$", shrink=0.9)
    return _save(plt, figure, described(found, plan), folder, "grid")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(plt: Any, figure: Any, below: str, folder: Path, name: str) -> list[str]:
    width = int(figure.get_size_inches()[0] * 17)
    figure.supxlabel("\n".join(textwrap.wrap(below, width)), fontsize=8)
    names = [f"{name}.{suffix}" for suffix in ("png", "pdf")]
    for file in names:
        figure.savefig(folder / file, dpi=150)
    plt.close(figure)
    return names
