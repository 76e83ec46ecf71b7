"""A picture of the page: inlined as SVG or PNG, and a PDF file beside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcddl.common.files import write_whole
from hpcddl.common.picture_file import pyplot
from hpcddl.report.looks import Look


@dataclass(frozen=True)
class Picture:
    """`name` is its PDF's, `about` says what it shows, also to those who cannot see it."""

    name: str
    about: str
    kind: str  # svg+xml or png
    image: bytes
    pdf: bytes
    wide: bool = False

    @property
    def source(self) -> str:
        """The source of an HTML image: separate from the page, so that no id occurs twice."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.image).decode()}"

    def write_pdf(self, folder: Path) -> None:
        """Writes NAME.pdf in `folder`."""
        write_whole(folder / f"{self.name}.pdf", self.pdf)


def finished(figure: Any, name: str, about: str, *, wide: bool = False) -> Picture:
    """Closes the figure."""
    files = {}
    for suffix, date in (("svg", "Date"), ("pdf", "CreationDate")):
        content = io.BytesIO()
        figure.savefig(content, format=suffix, metadata={date: None})
        files[suffix] = content.getvalue()
    pyplot().close(figure)
    return Picture(name, about, "svg+xml", files["svg"], files["pdf"], wide)


def add_legend(figure: Any, looks: Sequence[Look]) -> None:
    """Adds a legend below the axes: each entry once, in the order of the runs."""
    from matplotlib.lines import Line2D

    first = {look.entry: look for look in reversed(looks)}
    entries = list(dict.fromkeys(look.entry for look in looks))
    lines = []
    for entry in entries:
        style: dict[str, Any] = {"color": first[entry].colour, "linestyle": first[entry].style}
        lines.append(Line2D([], [], linewidth=2, label=entry, **style))
    columns = 2 if max(map(len, entries)) < 24 else 1
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, fontsize=8.5)
