"""The papers' tables and figures: what they show, the commands for it, and the printed numbers."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, model_validator

from hpcddl.common.errors import UserError
from hpcddl.common.options import Strict, nearest

FOLDER = Path(__file__).parent
Cell = str | int | float | None


class Numbers(Strict):
    """Printed numbers: a row is the values of `settings`, then those of `columns` (None: none)."""

    what: str  # quantity and unit
    settings: list[str]
    columns: list[str] = Field(min_length=1)
    rows: list[list[Cell]] = Field(min_length=1)
    source: str = ""  # the section, where it is not the table itself

    @model_validator(mode="after")
    def _check_rows(self) -> Numbers:
        width = len(self.settings) + len(self.columns)
        for row in self.rows:
            if len(row) != width:
                raise ValueError(f"rows: {row} must have {width} cells")
        return self


class Entry(Strict):
    """A table or figure."""

    title: str
    settings: str = ""  # what the paper says
    chosen: str = ""  # what it leaves open, and what is done here
    data: list[str] = Field(default_factory=list)  # keys of the paper's `data`
    commands: list[str] = Field(default_factory=list)
    recipes: list[str] = Field(default_factory=list)  # single runs of it
    missing: str = ""  # what no command does
    drawing: bool = False  # of an algorithm or a machine: nothing to run
    numbers: list[Numbers] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_commands(self) -> Entry:
        if not (self.commands or self.missing or self.drawing):
            raise ValueError(f"{self.title}: needs commands, or must say what is missing")
        return self


class Paper(Strict):
    """A paper: how its data are packed, and its tables and figures by name (`table4`, `fig2`)."""

    title: str
    data: dict[str, str]
    entries: dict[str, Entry]

    @model_validator(mode="after")
    def _check_data(self) -> Paper:
        for name, entry in self.entries.items():
            for key in entry.data:
                if key not in self.data:
                    raise ValueError(f"{name}: data: {nearest(key, self.data)}")
        return self


def papers() -> dict[str, Paper]:
    """Both papers, by letter."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.yaml"))}


def names() -> list[str]:
    """All tables and figures, as `a.table4`."""
    return [f"{letter}.{key}" for letter, paper in papers().items() for key in paper.entries]


def is_name(word: str) -> bool:
    """Whether `word` is written as the name of a table or figure."""
    return (FOLDER / f"{word.partition('.')[0]}.yaml").is_file()


def find(name: str) -> tuple[Paper, Entry]:
    """The table or figure of that name, and its paper.

    Raises:
        UserError: there is none.
    """
    letter, _, key = name.partition(".")
    paper = papers().get(letter)
    if paper is None or key not in paper.entries:
        alike = [other for other in names() if paper is None or other.startswith(f"{letter}.")]
        raise UserError(f"table or figure {name!r}: {nearest(name, alike)}")
    return paper, paper.entries[key]


def _read(path: Path) -> Paper:
    return Paper.model_validate(yaml.safe_load(path.read_text()))
