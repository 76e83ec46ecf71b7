"""Scp files: matrices by path, offset and range, or by command; stale paths are mapped."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from numpy.typing import NDArray

from data_prep.kaldi.archive import ZIP_ERRORS, command_output, is_zipped, open_archive
from data_prep.kaldi.compressed import Normalise
from data_prep.kaldi.matrix import BadRecordError, MatrixDecoder, Room, fill, read_shape
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.table import Line, Table
from hpcddl.common.errors import UserError

_ROW_TOLERANCE = 3  # Kaldi's, for segments whose ends were rounded to frames


class Entry(NamedTuple):
    """A matrix at an offset of a file or of a command's output, or rows and columns of it.

    `rows` and `columns` are first and last; None: all.
    """

    key: str
    path: str
    offset: int = 0
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    command: bool = False  # `path` is a command


def parse_entry(
    scp: Path, key: str, value: str, paths: PathMap, allow_pipes: bool = False
) -> Entry:
    """The entry that `value` describes, its path mapped.

    Raises UserError for standard input, a command to write to, and, unless `allow_pipes`, a command
    to read from.
    """
    place, ranges = value, ""
    if value.endswith("]"):
        place, _, ranges = value[:-1].rpartition("[")
    if place.endswith("|") or place.startswith("|"):
        if not allow_pipes or place.startswith("|"):
            allowed = "" if place.startswith("|") else "; fix: --allow-pipes"
            raise UserError(f"{scp}: {key}: a command ({place!r}), which is not run{allowed}")
        path, offset, command = place[:-1].strip(), 0, True
    else:
        path, colon, digits = place.rpartition(":")
        if not (colon and digits.isascii() and digits.isdecimal()):
            path, digits = place, "0"
        path, offset, command = paths.apply(path), int(digits), False
    if not path or path == "-":
        raise UserError(
            f"{scp}: {key}: {value!r} is no file: expected PATH, PATH:OFFSET or a range"
        )
    rows, columns = _ranges(scp, key, ranges) if value.endswith("]") else (None, None)
    return Entry(key, path, offset, rows, columns, command)


class Scp:
    """An scp file, kept on disk, and the reader of its matrices."""

    def __init__(self, path: Path, paths: PathMap, allow_pipes: bool = False) -> None:
        self._table = Table(path)
        self._paths = paths
        self._allow_pipes = allow_pipes
        self.reader = MatrixReader(paths)

    def find(self, key: str) -> Line | None:
        """The line of `key`, None where there is none."""
        return self._table.find(key)

    def entry(self, line: Line) -> Entry:
        """What the line describes.

        Raises:
            UserError: as parse_entry.
        """
        return parse_entry(self._table.path, line.key, line.value, self._paths, self._allow_pipes)

    def entry_of(self, key: str) -> Entry:
        """The entry of `key`.

        Raises:
            UserError: there is none.
        """
        line = self.find(key)
        if line is None:
            raise UserError(f"{self._table.path}: no line of {key}: has it changed?")
        return self.entry(line)

    def close(self) -> None:
        """Closes all files."""
        self._table.close()
        self.reader.close()


_RANGE = re.compile(r"(-?\d{1,9}):(-?\d{1,9})", re.ASCII)


def _ranges(scp: Path, key: str, text: str) -> list[tuple[int, int] | None]:
    parts = text.split(",")
    ranges: list[tuple[int, int] | None] = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None and part != ":":
            break
        ranges.append((int(match[1]), int(match[2])) if match else None)
    if len(ranges) != len(parts) or len(parts) > 2:
        raise UserError(
            f"{scp}: {key}: range [{text}]: expected [ROW:ROW] or [ROW:ROW,COLUMN:COLUMN], "
            "first and last, or : for all"
        )
    return [*ranges, None][:2]


class MatrixReader:
    """Reads the matrices that entries name and keeps the last archive open: entries come in order.

    All methods raise UserError naming the key, the file and the offset.
    """

    def __init__(self, paths: PathMap) -> None:
        self._paths = paths
        self._path = ""
        self._file: BinaryIO | None = None
        self._decoder = MatrixDecoder()

    def shape(self, entry: Entry) -> tuple[int, int]:
        """Rows and columns of a matrix that is wholly there, without decoding it."""
        with self._opened(entry) as file:
            rows, columns = read_shape(file)
            row, end = row_range(entry, rows)
            column, last = column_range(entry, columns)
        return end - row, last - column

    def read(self, entry: Entry) -> NDArray:
        """The matrix, float64 where it is stored so, else float32."""
        with self._opened(entry) as file:
            matrix = self._decoder.read(file)
            row, end = row_range(entry, matrix.shape[0])
            column, last = column_range(entry, matrix.shape[1])
        return matrix[row:end, column:last]

    def read_into(self, entry: Entry, room: Room, normalise: Normalise | None = None) -> None:
        """Reads the matrix, normalised, into the array that `room` gives for its shape.

        `room` raises BadRecordError for a shape that it does not take.
        """
        if entry.rows is None and entry.columns is None:
            with self._opened(entry) as file:
                self._decoder.read_into(file, room, normalise)
            return
        matrix = self.read(entry)
        try:
            out = room(*matrix.shape)
        except BadRecordError as error:
            raise fault(entry, error) from None
        fill(out, matrix, normalise)

    def close(self) -> None:
        """Closes the archive that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[BinaryIO]:
        try:
            if entry.command:
                yield command_output(entry.path)
                return
            file = self._archive(entry)
            file.seek(entry.offset)
            yield file
            if is_zipped(file):
                # The end of a zipped file tells whether it is whole: behind the last record, see.
                file.read(1)
        except (BadRecordError, *ZIP_ERRORS) as error:
            raise fault(entry, error) from None
        except OSError as error:
            raise fault(entry, f"cannot read it ({error.strerror})") from None

    def _archive(self, entry: Entry) -> BinaryIO:
        if self._file is None or self._path != entry.path:
            self.close()
            try:
                self._file = open_archive(entry.path)
            except OSError as error:
                advice = self._paths.advice(entry.path)
                reason = os.strerror(error.errno or 0)
                raise UserError(f"{entry.key}: {entry.path}: {reason}{advice}") from None
            self._path = entry.path
        return self._file


def fault(entry: Entry, error: Exception | str) -> UserError:
    """`error` after the utterance, the file and the offset that it is about."""
    if entry.command:
        return UserError(f"{entry.key}: {error}")
    return UserError(f"{entry.key}: {entry.path}:{entry.offset}: {error}")


def row_range(entry: Entry, rows: int) -> tuple[int, int]:
    """First row and end (exclusive) by Kaldi's rules: ends inclusive, up to two past the last row.

    Raises BadRecordError for a range that is reversed, negative or outside
    (src/util/kaldi-holder.cc).
    """
    if entry.rows is None:
        return 0, rows
    first, last = entry.rows
    if not (0 <= first <= last and first < rows and last < rows + _ROW_TOLERANCE):
        raise BadRecordError(f"range [{first}:{last}] does not fit {rows} rows")
    return first, min(last + 1, rows)


def column_range(entry: Entry, columns: int) -> tuple[int, int]:
    """First column and end (exclusive); no column past the last is tolerated.

    Raises BadRecordError for a range that is reversed, negative or outside.
    """
    if entry.columns is None:
        return 0, columns
    first, last = entry.columns
    if not 0 <= first <= last < columns:
        raise BadRecordError(f"range [,{first}:{last}] does not fit {columns} columns")
    return first, last + 1
