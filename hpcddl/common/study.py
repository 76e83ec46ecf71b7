"""What every study does once: a table, verdicts on a paper's claims, files, pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from hpcddl.common.errors import UserError
from hpcddl.common.files import whole_file, write_whole
from hpcddl.common.finite import finite
from hpcddl.common.picture_file import pyplot
from hpcddl.common.table import aligned


class StudyFolder:
    """The folder that a study writes into; it remembers what has been written there."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, with its parents, unless it is there.

        Raises:
            UserError: it cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {path}: cannot be written: {error.strerror}") from None
        self.path = path
        self._written: dict[str, None] = {}  # in this order, each once

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self._written)}"

    def write_csv(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        """Writes rows, the head first, as text with commas; nothing stands for None."""
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        write_whole(self.path / name, text.getvalue().encode())
        self._written[name] = None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes `content`; null stands for numbers that are not finite."""
        write_whole(self.path / name, json.dumps(nulled(content), indent=1).encode())
        self._written[name] = None

    @contextmanager
    def picture(
        self,
        name: str,
        rows: int = 1,
        columns: int = 1,
        *,
        suffixes: Sequence[str] = ("png", "pdf"),
        **options: Any,
    ) -> Iterator[tuple[Any, Any]]:
        """Yields a figure and its axes to draw on; at the end they are NAME.png and NAME.pdf.

        Args:
            options: of matplotlib's `subplots`, such as `figsize` in inches.
        """
        plt = pyplot()
        figure, axes = plt.subplots(rows, columns, layout="constrained", **options)
        for axis in figure.axes:
            axis.grid(alpha=0.3)
        try:
            yield figure, axes
            for suffix in suffixes:
                with whole_file(self.path / f"{name}.{suffix}") as file:
                    figure.savefig(file, format=suffix, dpi=150)
                self._written[f"{name}.{suffix}"] = None
        finally:
            plt.close(figure)


def text_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], floats: str = "", left: int = 0
) -> list[str]:
    """Aligns rows below their head, the first `left` columns to the left; "-" stands for None.

    Args:
        floats: their format, such as ".3g".
    """

    def text(value: Any) -> str:
        if value is None:
            return "-"
        return format(value, floats) if isinstance(value, float) else str(value)

    return aligned([list(head), *([text(value) for value in row] for row in rows)], left)


def verdict(
    claim: str, holds: bool | None, measured: str = "", *, whose: str = "paper", where: str = ""
) -> str:
    """Says what is claimed, whether it holds here, and by which numbers.

    Args:
        holds: None where the study did not look at it.
        where: follows the yes or no, such as " for K <= 16".
    """
    said = f"{'yes' if holds else 'no'}{where}: {measured}"
    return f"{whose + ':':<7}{claim}\nhere:  {'not in this study' if holds is None else said}"


def verdicts(claims: Mapping[str, tuple[bool, str]]) -> list[str]:
    """Makes a `verdict` on each claim of a paper: whether it holds, and what was measured."""
    return [verdict(claim, holds, measured) for claim, (holds, measured) in claims.items()]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Finds median, least and greatest; what is not a number counts as infinite."""
    known = sorted(math.inf if math.isnan(value) else value for value in values)
    return median(known), known[0], known[-1]


def nulled(content: Any) -> Any:
    """Replaces every number that is not finite by None, also inside lists, tuples and dicts."""
    if isinstance(content, dict):
        return {key: nulled(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [nulled(value) for value in content]
    return finite(content) if isinstance(content, float) else content
