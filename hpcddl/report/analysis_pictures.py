"""Pictures of what was analysed around and between the runs' solutions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from hpcddl.analysis import curvature_plot, interpolate_plot, landscape_plot
from hpcddl.common.leftovers import make_temporary_folder
from hpcddl.common.study import StudyFolder
from hpcddl.report.analyses import curvatures, landscapes, lines
from hpcddl.report.picture import Picture
from hpcddl.run.records import Run

MOST = 12
"""Panels or curves of one picture, and pictures of lines; more are not drawn, and it says so."""


def draw(runs: Sequence[Run]) -> Iterator[Picture]:
    """Draws contours, spectra and lines; results of one plan side by side on one scale."""
    for i, (plan, found) in enumerate(landscapes(runs).items()):
        yield _picture(
            partial(landscape_plot.draw, found[:MOST], plan, spacing=None, log=False),
            "landscape",
            _numbered("landscape", i),
            "Loss around the consensus of each run, on one scale" + _left_out(len(found)),
        )
    for i, (asked, curves) in enumerate(curvatures(runs).items()):
        if asked.probes:
            yield _picture(
                partial(curvature_plot.draw_density, curves[:MOST], asked),
                "density",
                _numbered("spectrum", i),
                "Density of the Hessian's eigenvalues at the consensus of each run"
                + _left_out(len(curves)),
            )
        if asked.grid:
            yield _picture(
                partial(curvature_plot.draw_grid, curves[:MOST], asked),
                "grid",
                _numbered("curvature-grid", i),
                "Ratio of the Hessian's extreme eigenvalues around each consensus"
                + _left_out(len(curves)),
            )
    between = lines(runs)
    for i, (line, losses) in enumerate(between[:MOST]):
        yield _picture(
            partial(interpolate_plot.draw, losses, line),
            "interpolate",
            _numbered("line", i),
            "Loss and error on the line through two runs" + _left_out(len(between)),
        )


def _picture(draw: Callable[..., object], written: str, name: str, about: str) -> Picture:
    """Calls `draw` with a folder and reads the picture that it writes there."""
    folder = make_temporary_folder(None, "hpcddl-report")
    try:
        draw(folder=StudyFolder(folder))
        image, pdf = ((folder / f"{written}.{suffix}").read_bytes() for suffix in ("png", "pdf"))
    finally:
        shutil.rmtree(folder)
    return Picture(name, about, "png", image, pdf, wide=True)


def _numbered(name: str, i: int) -> str:
    return f"{name}-{i + 1}" if i else name


def _left_out(count: int) -> str:
    return f" (the first {MOST} of {count})" if count > MOST else ""
