"""The pictures of curvatures: spectral densities, and heat maps of |lambda_min| / |lambda_max|."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcddl.analysis.curvature_report import described
from hpcddl.analysis.several_runs import panels, write_below
from hpcddl.analysis.spectral_density import smoothed
from hpcddl.analysis.spectrum import Curvature, SpectrumPlan
from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.common.study import StudyFolder

SIGMA = 1 / 200
"""Width of the Gaussians that smooth a density, relative to that of the runs' spectra."""
_POINTS = 2000


def draw_density(found: Sequence[Curvature], plan: SpectrumPlan, folder: StudyFolder) -> None:
    """Draws density.png and .pdf, all runs in one, smoothed alike."""
    nodes = np.concatenate([probe.nodes for run in found for probe in run.spectrum])
    width = float(np.ptp(nodes)) or 1.0
    sigma = SIGMA * width
    at = np.linspace(nodes.min() - width / 20, nodes.max() + width / 20, _POINTS)
    highest = 0.0
    with folder.picture("density", figsize=(8, 4.8)) as (figure, axis):
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
        axis.legend(title=r"run: $\lambda_{min}$ to $\lambda_{max}$")
        write_below(figure, described(found, plan))


def draw_grid(found: Sequence[Curvature], plan: SpectrumPlan, folder: StudyFolder) -> None:
    """Draws grid.png and .pdf, a heat map per run on one colour scale."""
    ratios = [curvature.ratios for curvature in found]
    highest = max((float(r) for r in np.ravel(ratios) if r > 0), default=1.0)
    places = [f"{at:.2g}" for at in plan.along]
    with panels(folder, "grid", len(found), 4.1, described(found, plan)) as (figure, axes):
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
            axis.set_xticks(range(plan.grid), places)
            axis.set_yticks(range(plan.grid), places)
            axis.set_title(f"{curvature.name}: mean {values.mean():.3f}", fontsize=10)
            axis.set_xlabel("along the first direction")
            axis.set_ylabel("along the second direction")
        figure.colorbar(image, ax=axes, label=r"$|\lambda_{min}| / |\lambda_{max}|$", shrink=0.9)
