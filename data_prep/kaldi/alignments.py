"""Kaldi's alignments, `ali.1.gz ...`: an integer per frame, streamed by utterance."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.archive import ZIP_ERRORS
from data_prep.kaldi.matrix import BadRecordError
from hpcddl.common.errors import UserError

_HEAD = struct.Struct("<2sbi")  # mark, then the count after a byte with its size
_ELEMENT_BYTES = 5  # a byte with the size of the integer precedes each one
_MAX_FRAMES = 1 << 28
_MAX_KEY = 1024  # bytes
_BLOCK_BYTES = 1 << 18


def alignment_files(directory: Path, stem: str = "ali") -> list[Path]:
    """`ali.1.gz ... ali.N.gz` (or unzipped) in job order; if the path is a file, only that.

    Raises UserError unless all N of `num_jobs`, or of the numbers found, are there: a missing job's
    utterances would look as if they had never been aligned.
    """
    if directory.is_file():
        return [directory]
    found: dict[int, Path] = {}
    for path in sorted(directory.glob(f"{stem}.*")):
        if match := re.fullmatch(re.escape(stem) + r"\.(\d+)(\.gz)?", path.name, re.ASCII):
            found.setdefault(int(match[1]), path)
    if not found:
        raise UserError(f"{directory}: no alignments, expected {stem}.1.gz ...")
    jobs_file = directory / "num_jobs"
    jobs = max(found)
    if jobs_file.is_file():
        text = jobs_file.read_text().strip()
        if not (text.isascii() and text.isdecimal() and int(text)):
            raise UserError(f"{jobs_file}: {text!r}, expected a number of jobs")
        jobs = int(text)
    if jobs > len(found):
        missing = next(job for job in range(1, jobs + 1) if job not in found)
        raise UserError(f"{directory}: {stem}.{missing}.gz is missing, expected all of {jobs} jobs")
    return [found[job] for job in range(1, jobs + 1)]


def read_alignments(
    path: Path, wanted: Callable[[int], bool] | None = None
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Utterances and their ids, (T,), in file order; zipped or not, binary or text.

    With `wanted`, only the records whose numbers, from 0, it accepts. Python unzips, not a command:
    for a missing file `gunzip |` would give an empty list without an error.

    Raises UserError naming the utterance, file and (unzipped) offset of a cut or garbled record.
    """
    records = None
    try:
        with open(path, "rb") as raw:
            start = raw.read(2)
            if not start and path.suffix == ".gz":
                raise BadRecordError("cut: an empty file is no zipped one")
            zipped = start == b"\x1f\x8b"
            raw.seek(0)
            records = _Records(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw)
            number = 0
            while (key := records.read_key()) is not None:
                if wanted is None or wanted(number):
                    yield key, records.read_ids()
                else:
                    records.skip_ids()
                number += 1
    except (BadRecordError, *ZIP_ERRORS) as error:
        where = f"{records.key}: " if records and records.key else ""
        offset = records.offset if records else 0
        raise UserError(f"{where}{path}:{offset}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the alignments ({error.strerror})") from None


class _Records:
    """Records taken one by one from blocks of a file; all methods raise BadRecordError.

    `key` and `offset` are of the last record begun.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.key = ""
        self.offset = 0
        self._file = file
        self._data = b""
        self._at = 0  # in the data
        self._passed = 0  # bytes of the file before the data

    def read_key(self) -> str | None:
        """The next utterance's name; None at the end of the file."""
        self.key, self.offset = "", self._passed + self._at
        end = self._data.find(b" ", self._at, self._at + _MAX_KEY)
        if end < 0:
            if not self._have(_MAX_KEY) and self._at == len(self._data):
                return None
            end = self._data.find(b" ", self._at, self._at + _MAX_KEY)
        key = self._data[self._at : end if end >= 0 else self._at + _MAX_KEY]
        if b"\n" in key or end == self._at or len(key) == _MAX_KEY:
            raise BadRecordError(f"garbled: no utterance begins here (found {key[:20]!r})")
        if end < 0:
            raise BadRecordError("cut: the file ends inside an utterance's name")
        try:
            self.key = key.decode()
        except UnicodeDecodeError:
            raise BadRecordError(f"garbled: {key[:20]!r} is no utterance's name") from None
        self._at = end + 1
        return self.key

    def read_ids(self) -> NDArray[np.int32]:
        """(T,) the record's integers."""
        if self._is_text():
            line = self._line()
            try:
                # Python's integers may hold underscores, Kaldi's may not.
                if b"_" in line:
                    raise ValueError
                return np.array(line.split(), np.int32)
            except (ValueError, OverflowError):
                raise BadRecordError("garbled: text that is no list of integers") from None
        count = self._count()
        size = _ELEMENT_BYTES * count
        if self._data[self._at : self._at + size : _ELEMENT_BYTES] != b"\4" * count:
            raise BadRecordError("garbled: an element of the vector has another size than 4 bytes")
        ids = np.empty(count, np.int32)
        if count:
            strides = (_ELEMENT_BYTES,)
            ids[:] = np.ndarray((count,), "<i4", self._data, self._at + 1, strides)
        self._at += size
        return ids

    def skip_ids(self) -> None:
        """Skips the record's integers, after checking that all are there."""
        if self._is_text():
            self._line()
        else:
            count = self._count()
            self._at += _ELEMENT_BYTES * count

    def _is_text(self) -> bool:
        if not self._have(1):
            raise BadRecordError("cut: the file ends after an utterance's name")
        return self._data[self._at] != 0

    def _line(self) -> bytes:
        searched = self._at
        while (end := self._data.find(b"\n", searched)) < 0:
            unread = len(self._data) - self._at
            if not self._have(2 * unread + 1):
                if (end := self._data.find(b"\n", self._at)) >= 0:
                    break
                raise BadRecordError("cut: the file ends inside a line of text")
            searched = self._at
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _count(self) -> int:
        # Of a binary record, all of whose elements are there.
        if not self._have(_HEAD.size):
            raise BadRecordError(self._cut(_HEAD.size))
        mark, size, count = _HEAD.unpack_from(self._data, self._at)
        if mark != b"\0B" or size != 4 or not 0 <= count <= _MAX_FRAMES:
            raise BadRecordError("garbled: no vector of 32-bit integers begins here")
        self._at += _HEAD.size
        if not self._have(_ELEMENT_BYTES * count):
            raise BadRecordError(self._cut(_ELEMENT_BYTES * count))
        return int(count)

    def _cut(self, size: int) -> str:
        left = len(self._data) - self._at
        return f"cut: {size} bytes expected, the file ends after {left}"

    def _have(self, size: int) -> bool:
        # Whether `size` bytes from here are in the data, after reading on if need be.
        left = len(self._data) - self._at
        if left >= size:
            return True
        parts = [self._data[self._at :]]
        while left < size and (part := self._file.read(_BLOCK_BYTES)):
            parts.append(part)
            left += len(part)
        self._passed += self._at
        self._data, self._at = b"".join(parts), 0
        return left >= size
