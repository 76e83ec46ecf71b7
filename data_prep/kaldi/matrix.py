"""One Kaldi matrix record: FM, DM, the compressed CM, CM2 and CM3, and text.

The layout is Kaldi's (src/matrix/kaldi-matrix.cc, compressed-matrix.h).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.compressed import ColumnDecoder, Normalise


class BadRecordError(Exception):
    """A record that cannot be read; the reader adds the file, the offset and the utterance."""


class Header(NamedTuple):
    """What precedes a binary matrix's values; `minimum` and `extent` are for compressed kinds."""

    kind: str
    rows: int
    columns: int
    minimum: float = 0.0
    extent: float = 0.0

    @property
    def data_bytes(self) -> int:
        """Size of what follows the header."""
        values = self.rows * self.columns
        return _VALUE_BYTES[self.kind] * values + (8 * self.columns if self.kind == "CM" else 0)


_VALUE_BYTES = {"FM": 4, "DM": 8, "CM": 1, "CM2": 2, "CM3": 1}
_SIZES = struct.Struct("<bibi")  # each after a byte that says it has four
_EXTENT_AND_SIZES = struct.Struct("<ffii")
_CHUNK_BYTES = 1 << 20
_LARGEST = 1 << 40  # bytes of a matrix; more means a garbled header
# Below it no step of the decoding can overflow.
_HIGHEST = 1e36

# Gives a float32 array of (rows, columns) to fill.
Room = Callable[[int, int], NDArray[np.float32]]


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; raises BadRecordError when the file ends before.

    Takes no more memory than the file has bytes, whatever a garbled `size` says.
    """
    data = file.read(min(size, _CHUNK_BYTES))
    if len(data) == size:
        return data
    parts = [data]
    left = size - len(data)
    while left and parts[-1]:
        parts.append(file.read(min(left, _CHUNK_BYTES)))
        left -= len(parts[-1])
    if left:
        raise BadRecordError(f"cut: {size} bytes expected, the file ends after {size - left}")
    return b"".join(parts)


def read_header(file: BinaryIO) -> Header | None:
    """The header at the file's position, None for a text record (position then unchanged).

    Raises BadRecordError unless a matrix begins here.
    """
    start = file.read(5)
    if start[:2] != b"\0B":
        if start.lstrip()[:1] not in (b"", b"["):
            _refuse(start + file.read(3))
        file.seek(-len(start), io.SEEK_CUR)
        return None
    kind = start[2:4].decode("latin-1")
    if start[4:] in (b"2", b"3") and file.read(1) == b" ":
        kind += start[4:].decode()
    elif start[4:] != b" ":
        _refuse(start)
    if kind in ("FM", "DM"):
        one, rows, other, columns = _SIZES.unpack(read_exactly(file, _SIZES.size))
        if one != 4 or other != 4:
            raise BadRecordError(f"garbled: sizes of integers {one} and {other}, not 4")
        header = Header(kind, rows, columns)
    elif kind in ("CM", "CM2", "CM3"):
        minimum, extent, rows, columns = _EXTENT_AND_SIZES.unpack(read_exactly(file, 16))
        if not abs(minimum) + abs(extent) <= _HIGHEST:
            raise BadRecordError(f"garbled: values from {minimum} over a range of {extent}")
        header = Header(kind, rows, columns, minimum, extent)
    else:
        _refuse(start)
    if rows < 0 or columns < 0 or (rows == 0) != (columns == 0) or header.data_bytes > _LARGEST:
        raise BadRecordError(f"garbled: {rows} x {columns} values")
    return header


def _refuse(start: bytes) -> NoReturn:
    if start.startswith((b"PKL", b"\0BPKL")):
        raise BadRecordError("a Python pickle, which could run any code: refused")
    if start in (b"\0BFV ", b"\0BDV "):
        raise BadRecordError("a vector, expected a matrix")
    raise BadRecordError(
        f"no Kaldi matrix begins here (found {start!r}, expected FM, DM, CM, CM2, CM3 or text)"
    )


def read_shape(file: BinaryIO) -> tuple[int, int]:
    """Rows and columns of the matrix at the file's position, without decoding a binary one.

    Raises BadRecordError unless all of it is there.
    """
    header = read_header(file)
    if header is None:
        rows, columns = _read_text(file).shape
        return rows, columns
    if header.data_bytes:
        file.seek(header.data_bytes - 1, io.SEEK_CUR)
        if not file.read(1):
            raise BadRecordError(
                f"cut: {header.rows} x {header.columns} values ({header.kind}) take "
                f"{header.data_bytes} bytes, the file ends before"
            )
    return header.rows, header.columns


class MatrixDecoder:
    """Reads one matrix after the other and reuses its buffers."""

    def __init__(self) -> None:
        self._columns = ColumnDecoder()

    def read(self, file: BinaryIO) -> NDArray:
        """The matrix at the file's position: float64 for DM, float32 for all others.

        Raises BadRecordError when it is cut, garbled or no matrix.
        """
        header = read_header(file)
        if header is None:
            return _read_text(file)
        data = read_exactly(file, header.data_bytes)
        if header.kind != "CM" or not data:
            return _values(header, data)
        out = np.empty((header.rows, header.columns), np.float32)
        self._columns.decode(data, header.minimum, header.extent, None, out)
        return out

    def read_into(self, file: BinaryIO, room: Room, normalise: Normalise | None) -> None:
        """Reads the matrix, normalised, into the array that `room` gives for its shape.

        Raises BadRecordError as `read` does; `room` raises it for a shape that it does not take.
        """
        header = read_header(file)
        if header is not None and header.kind == "CM" and header.rows:
            data = read_exactly(file, header.data_bytes)
            out = room(header.rows, header.columns)
            self._columns.decode(data, header.minimum, header.extent, normalise, out)
            return
        if header is None:
            matrix: NDArray = _read_text(file)
        else:
            matrix = _values(header, read_exactly(file, header.data_bytes))
        fill(room(*matrix.shape), matrix, normalise)


def fill(out: NDArray[np.float32], matrix: NDArray, normalise: Normalise | None) -> None:
    """Copies into `out`, then normalises there."""
    out[:] = matrix
    if normalise is not None:
        normalise(out)


def read_matrix(file: BinaryIO) -> NDArray:
    """One matrix, as MatrixDecoder.read gives it."""
    return MatrixDecoder().read(file)


def _values(header: Header, data: bytes) -> NDArray:
    shape = (header.rows, header.columns)
    if header.kind == "FM":
        return np.frombuffer(data, "<f4").reshape(shape)
    if header.kind == "DM":
        return np.frombuffer(data, "<f8").reshape(shape)
    kind, largest = ("<u2", 65535.0) if header.kind == "CM2" else ("u1", 255.0)
    step = np.float32(header.extent * (1.0 / largest))
    return np.float32(header.minimum) + np.frombuffer(data, kind).reshape(shape) * step


def _read_text(file: BinaryIO) -> NDArray[np.float32]:
    lines = [file.readline()]
    while b"]" not in lines[-1]:
        if not lines[-1]:
            raise BadRecordError("cut: a text matrix without its closing bracket")
        lines.append(file.readline())
    text = b"".join(lines)
    body = text[: text.index(b"]")].strip()
    if not body.startswith(b"["):
        _refuse(text[:8])
    rows = [row for line in body[1:].replace(b";", b"\n").split(b"\n") if (row := line.split())]
    try:
        # Python's numbers may hold underscores, Kaldi's may not.
        if b"_" in body:
            raise ValueError
        with np.errstate(over="ignore"):
            matrix = np.array(rows, np.float32)
        return matrix.reshape(len(rows), len(rows[0]) if rows else 0)
    except ValueError:
        raise BadRecordError("garbled: text that is no matrix of numbers") from None
