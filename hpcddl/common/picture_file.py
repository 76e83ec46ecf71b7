"""Draws without a display, and writes a picture where an option says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcddl.common.errors import UserError
from hpcddl.common.files import whole_file


def pyplot() -> Any:
    """Returns matplotlib's pyplot, without a display; ids in SVG depend on the picture alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "hpcddl"
    return plt


@contextmanager
def picture_file(path: Path, option: str, size: tuple[float, float], dpi: int) -> Iterator[Any]:
    """Yields a figure to draw on, `size` inches large; at the end it is the picture `path`.

    Raises:
        UserError: a suffix that is not a picture's; a path that cannot be written.
    """
    plt = pyplot()
    figure = plt.figure(figsize=size, layout="constrained")
    try:
        known = figure.canvas.get_supported_filetypes()
        if path.suffix[1:] not in known:
            raise UserError(f"{option} {path}: must end in one of {', '.join(sorted(known))}")
        yield figure
        with whole_file(path) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=dpi)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from None
    finally:
        plt.close(figure)
