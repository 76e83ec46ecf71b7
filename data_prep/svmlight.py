"""Lines of LIBSVM files: `label index:value ...`, indices ascending from 1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.archive import open_file
from hpcddl.common.errors import UserError

_LINE = re.compile(rb"([^\s:]+)((?:[ \t]+[0-9]+:[^\s:_]+)*)\s*")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Row:
    """One sample: its label, and its non-zero features as (0-based) indices and values."""

    label: float
    indices: list[int]
    values: list[float]


def read_rows(path: Path) -> Iterator[Row]:
    """The samples of a file, plain or compressed (.gz, .bz2); comments and empty lines pass.

    Raises UserError naming the line and what is wrong with it.
    """
    with open_file(path) as file:
        for number, line in enumerate(file, 1):
            content = line.partition(b"#")[0].strip()
            if content:
                try:
                    yield _row(content)
                except ValueError as error:
                    raise UserError(f"{path}: line {number}: {error}") from None


def _row(line: bytes) -> Row:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(_fault(line))
    numbers = match[2].replace(b":", b" ").split()
    indices = [int(index) - 1 for index in numbers[0::2]]
    values = list(map(float, numbers[1::2]))
    if any(a >= b for a, b in zip([-1, *indices], indices, strict=False)):
        raise ValueError("indices must ascend, from 1")
    # Also false for NaN.
    if not all(-_FLOAT32_MAX <= value <= _FLOAT32_MAX for value in values):
        worst = next(v for v in values if not -_FLOAT32_MAX <= v <= _FLOAT32_MAX)
        raise ValueError(f"value {worst}: must be finite in float32")
    return Row(_label(match[1]), indices, values)


def _label(word: bytes) -> float:
    try:
        label = float(word)
    except ValueError:
        raise ValueError(f"label {_shown(word)}, must be one number per sample") from None
    if not np.isfinite(label):
        raise ValueError(f"label {_shown(word)}: must be a finite number")
    return label


def _fault(line: bytes) -> str:
    """What is wrong with a line that is not of the format."""
    label, *pairs = line.split()
    if b":" in label:
        return f"begins with {_shown(label)}, expected a label"
    if any(pair.startswith(b"qid:") for pair in pairs):
        return "has a qid: ranking data; must be for classification"
    bad = next(pair for pair in pairs if not re.fullmatch(rb"[0-9]+:[^\s:_]+", pair))
    return f"{_shown(bad)}, expected index:value"


def _shown(word: bytes) -> str:
    return repr(word[:40].decode(errors="replace"))
