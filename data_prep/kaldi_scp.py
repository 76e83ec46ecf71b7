"""Kaldi's text tables, and scp files with stale paths, offsets and row ranges."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from numpy.typing import NDArray

from data_prep.kaldi_matrix import BadRecordError, read_header, read_matrix
from hpcddl.errors import UserError

_ROW_TOLERANCE = 3  # Kaldi's, for segments whose ends were rounded to frames


@dataclass(frozen=True)
class PathMap:
    """Prefix replacements for the absolute paths of a corpus that has moved."""

    pairs: tuple[tuple[str, str], ...] = ()
    near: Path | None = None  # where to look for what to suggest

    @classmethod
    def parse(cls, words: Sequence[str], near: Path) -> PathMap:
        """From `OLD=NEW` words; raises UserError for any other."""
        pairs = []
        for word in words:
            old, equals, new = word.partition("=")
            if not (old and equals and new):
                raise UserError(f"--map {word}: expected OLD=NEW, two path prefixes")
            pairs.append((old.rstrip("/"), new.rstrip("/")))
        return cls(tuple(pairs), near)

    def apply(self, path: str) -> str:
        """`path` with the first prefix that fits replaced, by whole folders only."""
        for old, new in self.pairs:
            if path == old or path.startswith(old + "/"):
                return new + path[len(old) :]
        return path

    def advice(self, path: str) -> str:
        """What to say about a file that is not there: the mapping that would find it, if any."""
        parts = Path(path).parts
        if self.near is not None:
            near = self.near.resolve()
            # The longest tail first: the prefix that remains then serves all files of the corpus.
            for count in range(1, len(parts)):
                for ancestor in (near, *near.parents):
                    if ancestor.joinpath(*parts[count:]).is_file():
                        return f"; it is found with --map {Path(*parts[:count])}={ancestor}"
        return "; where the corpus has moved, give --map OLD=NEW for the prefix of its paths"


@dataclass(frozen=True)
class Entry:
    """One line of an scp file: a matrix at an offset of a file, or rows first..last of it."""

    key: str
    path: str
    offset: int
    rows: tuple[int, int] | None = None


_LINE = re.compile(r"(?P<path>.*?)(?::(?P<offset>\d+))?(?:\[(?P<range>[^\]]*)\])?")


def read_table(path: Path) -> dict[str, str]:
    """A two-column text file, such as utt2spk, as first word -> rest of the line.

    Raises UserError for a missing file, a line without a value or a repeated key.
    """
    table: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                key, _, value = line.strip().partition(" ")
                if not value:
                    raise UserError(
                        f"{path}:{number}: {line.strip()!r}: expected a key and a value"
                    )
                if key in table:
                    raise UserError(f"{path}:{number}: {key} occurs twice")
                table[key] = value.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read it ({error})") from None
    return table


def read_scp(path: Path, paths: PathMap) -> dict[str, Entry]:
    """The entries of an scp file by key, their paths mapped.

    Raises UserError for pipes, standard input and column ranges, which are not read.
    """
    return {key: _entry(path, key, value, paths) for key, value in read_table(path).items()}


def _entry(scp: Path, key: str, value: str, paths: PathMap) -> Entry:
    if value.endswith("|") or value.startswith("|"):
        raise UserError(f"{scp}: {key}: a command ({value!r}), which is not run: copy it to an ark")
    match = _LINE.fullmatch(value)
    if match is None or match["path"] in ("", "-"):
        raise UserError(
            f"{scp}: {key}: {value!r} is no file: expected PATH, PATH:OFFSET or a range"
        )
    rows = None
    # "[:]" is Kaldi's word for all rows.
    if match["range"] not in (None, ":"):
        ends = re.fullmatch(r"(-?\d+):(-?\d+)", match["range"])
        if ends is None:
            raise UserError(f"{scp}: {key}: range [{match['range']}]: expected rows [FIRST:LAST]")
        rows = int(ends[1]), int(ends[2])
    return Entry(key, paths.apply(match["path"]), int(match["offset"] or 0), rows)


class MatrixReader:
    """Reads the matrices that entries name and keeps the last archive open: entries come in order.

    All methods raise UserError naming the key, the file and the offset.
    """

    def __init__(self, paths: PathMap) -> None:
        self._paths = paths
        self._path = ""
        self._file: BinaryIO | None = None

    def shape(self, entry: Entry) -> tuple[int, int]:
        """Rows and columns of a matrix that is wholly there, without decoding it."""
        file = self._open(entry)
        try:
            header = read_header(file)
            if header is not None:
                rows, columns = header.rows, header.columns
            else:
                rows, columns = read_matrix(file).shape
            first, end = row_range(entry, rows)
        except BadRecordError as error:
            raise _fault(entry, error) from None
        return end - first, columns

    def read(self, entry: Entry) -> NDArray:
        """The matrix, float64 where it is stored so, else float32."""
        file = self._open(entry)
        try:
            matrix = read_matrix(file)
            first, end = row_range(entry, len(matrix))
        except BadRecordError as error:
            raise _fault(entry, error) from None
        return matrix[first:end]

    def close(self) -> None:
        """Closes the archive that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, entry: Entry) -> BinaryIO:
        if self._file is None or self._path != entry.path:
            self.close()
            try:
                self._file = open(entry.path, "rb")  # noqa: SIM115
            except OSError as error:
                advice = self._paths.advice(entry.path)
                reason = os.strerror(error.errno or 0)
                raise UserError(f"{entry.key}: {entry.path}: {reason}{advice}") from None
            self._path = entry.path
        self._file.seek(entry.offset)
        return self._file


def _fault(entry: Entry, error: BadRecordError) -> UserError:
    return UserError(f"{entry.key}: {entry.path}:{entry.offset}: {error}")


def row_range(entry: Entry, rows: int) -> tuple[int, int]:
    """First row and end (exclusive) by Kaldi's rules: ends inclusive, up to two past the last row.

    Raises BadRecordError for a range that is reversed, negative or outside.
    """
    if entry.rows is None:
        return 0, rows
    first, last = entry.rows
    if not (0 <= first <= last and first < rows and last < rows + _ROW_TOLERANCE):
        raise BadRecordError(f"range [{first}:{last}] does not fit {rows} rows")
    return first, min(last + 1, rows)
