"""The papers' tables and figures as text: all with their commands, or one in full."""

from collections.abc import Iterator
from textwrap import fill

from hpcddl.common.table import aligned
from hpcddl.papers import Cell, Entry, Numbers, find, papers


def listed() -> list[str]:
    """A line for each table and figure: its name, its first command and its title."""
    lines = []
    for letter, paper in papers().items():
        rows = [(f"{letter}.{key}", *_first(entry)) for key, entry in paper.entries.items()]
        lines += [f"paper {letter.upper()}: {paper.title}", *aligned(rows, left=3), ""]
    return [
        *lines,
        "`hpcddl recipes a.table4` shows a table's settings, all its commands and its numbers.",
        "`hpcddl sweep NAME` lists a sweep's runs; with --all it trains them, with --run I one.",
    ]


def full(name: str) -> list[str]:
    """Settings, choices, commands and the paper's numbers of one table or figure.

    Raises:
        UserError: there is none of that name.
    """
    paper, entry = find(name)
    lines = [f"{name}: {entry.title}", f'in "{paper.title}"']
    if entry.drawing:
        lines.append("There is nothing to run.")
    for heading, text in (
        ("in the paper", entry.settings),
        ("chosen here, where the paper does not say", entry.chosen),
        ("missing", entry.missing),
    ):
        if text:
            lines += ["", f"{heading}:", _wrapped(text)]
    for heading, words in (
        ("data", [paper.data[key] for key in entry.data]),
        ("commands", entry.commands),
        ("recipes of its single runs", entry.recipes),
    ):
        if words:
            lines += ["", f"{heading}:", *(f"  {word}" for word in words)]
    for numbers in entry.numbers:
        lines += ["", *table(numbers)]
    return lines


def _first(entry: Entry) -> tuple[str, str]:
    if entry.drawing:
        return "-", entry.title
    return (entry.commands or ["-"])[0], entry.title


def table(numbers: Numbers) -> Iterator[str]:
    """The numbers as printed: columns under each other, settings first."""
    where = f" ({numbers.source})" if numbers.source else ""
    yield f"the paper's numbers{where}: {numbers.what}"
    left = len(numbers.settings)
    columns = [list(column) for column in zip(*numbers.rows, strict=True)]
    texts = [list(map(str, column)) for column in columns[:left]]
    texts += map(_printed, columns[left:])
    rows = [(*numbers.settings, *numbers.columns), *zip(*texts, strict=True)]
    yield from (f"  {line}" for line in aligned(rows, left))


def _printed(values: list[Cell]) -> list[str]:
    """A column with as many decimals everywhere as its longest number has."""
    floats = [value for value in values if isinstance(value, float)]
    decimals = max((len(str(value).partition(".")[2]) for value in floats), default=0)

    def text(value: Cell) -> str:
        if value is None:
            return "-"
        return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)

    return list(map(text, values))


def _wrapped(text: str) -> str:
    return fill(
        text, width=100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
