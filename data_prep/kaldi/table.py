"""Kaldi's two-column text files, such as feats.scp and utt2spk, kept on disk.

Kaldi sorts them in C order: one pass at opening checks that and keeps every 64th key, so that
memory does not grow with the corpus.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError

_BLOCK = 64  # lines
_MAX_UNSORTED = 1_000_000  # lines; each takes 16 bytes of memory


class Line(NamedTuple):
    """`key value` of line `number`, from 0, which begins at byte `offset`."""

    number: int
    offset: int
    key: str
    value: str


class Table:
    """Lookup by key or offset in a table whose lines stay on disk.

    Opening raises UserError for a missing file, a line without a value, a repeated key or too many
    lines out of order. Lookups in the order of the file are the fast ones.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: list[bytes] = []  # of each block's first line
        self._offsets: list[int] = []  # of each block's first line
        self._length = 0
        self._hashes: NDArray[np.int64] | None = None  # of all keys, ascending, where unsorted
        self._numbers: NDArray[np.int64] | None = None  # of the lines, in the order of the hashes
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{path}: cannot read it ({error.strerror})") from None
        self._by_key: dict[str, Line] = {}
        self._by_offset: dict[int, Line] = {}
        try:
            if not self._index():
                self._index_by_hash()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Line]:
        """All lines in file order; lookups in between do not disturb it."""
        for block in range(len(self._offsets)):
            yield from self._lines(block)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def find(self, key: str) -> Line | None:
        """The line of `key`, None where there is none."""
        if (line := self._by_key.get(key)) is None:
            for block in self._candidates(key.encode()):
                self._load(block)
                if (line := self._by_key.get(key)) is not None:
                    break
        return line

    def at(self, offset: int) -> Line:
        """The line that begins at byte `offset`.

        Raises:
            UserError: none does.
        """
        if (line := self._by_offset.get(offset)) is None:
            self._load(max(0, bisect_right(self._offsets, offset) - 1))
            if (line := self._by_offset.get(offset)) is None:
                raise UserError(f"{self.path}: no line begins at byte {offset}: has it changed?")
        return line

    def _candidates(self, key: bytes) -> list[int]:
        # The blocks that may hold the key.
        if self._hashes is None or self._numbers is None:
            block = bisect_right(self._keys, key) - 1
            return [block] if block >= 0 else []
        value = np.int64(hash(key))
        first = np.searchsorted(self._hashes, value, "left")
        end = np.searchsorted(self._hashes, value, "right")
        return [int(number) // _BLOCK for number in self._numbers[first:end]]

    def _load(self, block: int) -> None:
        lines = self._lines(block) if block < len(self._offsets) else []
        self._by_key = {line.key: line for line in lines}
        self._by_offset = {line.offset: line for line in lines}

    def _lines(self, block: int) -> list[Line]:
        number, offset = block * _BLOCK, self._offsets[block]
        self._file.seek(offset)
        lines = []
        for data in self._file:
            key, value = self._split(data, number)
            lines.append(Line(number, offset, key.decode(), value.decode().rstrip()))
            number += 1
            offset += len(data)
            if len(lines) == _BLOCK:
                break
        return lines

    def _split(self, data: bytes, number: int) -> list[bytes]:
        parts = data.split(None, 1)
        if len(parts) != 2:
            text = data.decode("utf-8", "replace").strip()
            raise UserError(f"{self.path}:{number + 1}: {text!r}: expected a key and a value")
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{self.path}:{number + 1}: no UTF-8 ({error})") from None
        return parts

    def _index(self) -> bool:
        # False at the first line out of order.
        last = b""
        number = offset = 0
        for data in self._file:
            key = self._split(data, number)[0]
            if key <= last:
                if key == last:
                    raise self._twice(key, number)
                return False
            if number % _BLOCK == 0:
                self._keys.append(key)
                self._offsets.append(offset)
            last = key
            number += 1
            offset += len(data)
        self._length = number
        return True

    def _index_by_hash(self) -> None:
        self._keys, self._offsets = [], []
        hashes = np.empty(_MAX_UNSORTED, np.int64)
        self._file.seek(0)
        number = offset = 0
        for number, data in enumerate(self._file):
            if number == _MAX_UNSORTED:
                raise UserError(
                    f"{self.path}: not sorted, allowed up to {_MAX_UNSORTED} lines; sort it by "
                    "LC_ALL=C sort, a data folder by utils/fix_data_dir.sh"
                )
            hashes[number] = hash(self._split(data, number)[0])
            if number % _BLOCK == 0:
                self._offsets.append(offset)
            offset += len(data)
        self._length = number + 1
        self._numbers = np.argsort(hashes[: self._length], kind="stable")
        self._hashes = hashes[self._numbers]
        for place in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            self._refuse_repeated(*self._numbers[place : place + 2].tolist())

    def _refuse_repeated(self, first: int, second: int) -> None:
        # Equal hashes of different keys are no fault.
        one, other = (self._lines(number // _BLOCK)[number % _BLOCK] for number in (first, second))
        if one.key == other.key:
            raise self._twice(one.key.encode(), second)

    def _twice(self, key: bytes, number: int) -> UserError:
        return UserError(f"{self.path}:{number + 1}: {key.decode()} occurs twice")
