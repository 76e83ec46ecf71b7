"""One Kaldi matrix record: FM, DM, the compressed CM, CM2 and CM3, and text.

The layout is Kaldi's (src/matrix/compressed-matrix.h): a speech-feature matrix (CM) holds each
column's 0, 25, 75 and 100 % quantiles and one byte per value between them, so a table of 256 floats
per column decodes it at the speed of memory.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


class BadRecordError(Exception):
    """A record that cannot be read; the reader adds the file, the offset and the utterance."""


@dataclass(frozen=True)
class Header:
    """What precedes a binary matrix's values; `minimum` and `range` are for compressed kinds."""

    kind: str
    rows: int
    columns: int
    minimum: float
    range: float

    @property
    def data_bytes(self) -> int:
        """Size of what follows the header."""
        values = self.rows * self.columns
        return {
            "FM": 4 * values,
            "DM": 8 * values,
            "CM": 8 * self.columns + values,
            "CM2": 2 * values,
            "CM3": values,
        }[self.kind]


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; raises BadRecordError when the file ends before."""
    data = file.read(size)
    if len(data) != size:
        raise BadRecordError(f"cut: {size} bytes expected, the file ends after {len(data)}")
    return data


def read_header(file: BinaryIO) -> Header | None:
    """The header at the file's position, None for a text record (position then unchanged).

    Raises BadRecordError unless a matrix begins here and all of it is inside the file.
    """
    position = file.tell()
    if (start := file.read(2)) != b"\0B":
        if start.lstrip() not in (b"", b"["):
            _refuse(start + file.read(6))
        file.seek(position)
        return None
    token = b""
    while not token.endswith(b" "):
        if len(token) == 4:
            _refuse(start + token)
        token += read_exactly(file, 1)
    kind = token[:-1].decode("latin-1")
    if kind in ("FM", "DM"):
        minimum = extent = 0.0
        marks = struct.unpack("<bibi", read_exactly(file, 10))
        if marks[0] != 4 or marks[2] != 4:
            raise BadRecordError(f"garbled: sizes of integers {marks[0]} and {marks[2]}, not 4")
        rows, columns = marks[1], marks[3]
    elif kind in ("CM", "CM2", "CM3"):
        minimum, extent, rows, columns = struct.unpack("<ffii", read_exactly(file, 16))
    else:
        _refuse(start + token)
    if rows < 0 or columns < 0:
        raise BadRecordError(f"garbled: {rows} x {columns} values")
    header = Header(kind, rows, columns, minimum, extent)
    # Compared with the file before reading: garbled sizes must not become a huge allocation.
    left = os.fstat(file.fileno()).st_size - file.tell()
    if header.data_bytes > left:
        raise BadRecordError(
            f"cut: {rows} x {columns} values ({kind}) take {header.data_bytes} bytes, "
            f"the file ends after {left}"
        )
    return header


def _refuse(start: bytes) -> None:
    if start.startswith((b"PKL", b"\0BPKL")):
        raise BadRecordError("a Python pickle, which could run any code: refused")
    if start in (b"\0BFV ", b"\0BDV "):
        raise BadRecordError("a vector, expected a matrix")
    raise BadRecordError(
        f"no Kaldi matrix begins here (found {start!r}, expected FM, DM, CM, CM2, CM3 or text)"
    )


def read_matrix(file: BinaryIO) -> NDArray:
    """The matrix at the file's position: float64 for DM, float32 for all others.

    Raises BadRecordError when it is cut, garbled or no matrix.
    """
    header = read_header(file)
    if header is None:
        return _read_text(file)
    data = read_exactly(file, header.data_bytes)
    shape = (header.rows, header.columns)
    if header.kind == "FM":
        return np.frombuffer(data, "<f4").reshape(shape)
    if header.kind == "DM":
        return np.frombuffer(data, "<f8").reshape(shape)
    minimum = np.float32(header.minimum)
    if header.kind == "CM2":
        step = np.float32(header.range * (1.0 / 65535.0))
        return minimum + np.frombuffer(data, "<u2").reshape(shape) * step
    if header.kind == "CM3":
        step = np.float32(header.range * (1.0 / 255.0))
        return minimum + np.frombuffer(data, "u1").reshape(shape) * step
    return _decode_columns(data, header)


def _decode_columns(data: bytes, header: Header) -> NDArray[np.float32]:
    scale = np.float32(header.range) * np.float32(1.52590218966964e-05)
    quantiles = np.frombuffer(data, "<u2", 4 * header.columns).reshape(header.columns, 4)
    points = (np.float32(header.minimum) + scale * quantiles.astype(np.float32))[..., None]
    low, lower, upper, high = points.swapaxes(0, 1)  # each (D, 1)
    table = np.empty((header.columns, 256), np.float32)
    # Three straight pieces: bytes 0..64, 64..192, 192..255. Products in single, sums in double
    # precision, as Kaldi's compiler has it: the values are its own to the last bit.
    for begin, end, start, stop, zero, width in (
        (0, 65, low, lower, 0, 64),
        (65, 193, lower, upper, 64, 128),
        (193, 256, upper, high, 192, 63),
    ):
        product = (stop - start) * np.arange(begin - zero, end - zero, dtype=np.float32)
        table[:, begin:end] = start + product.astype(np.float64) * (1.0 / width)
    codes = np.frombuffer(data, "u1", offset=8 * header.columns)
    codes = codes.reshape(header.columns, header.rows)
    values = np.empty((header.columns, header.rows), np.float32)
    for column in range(header.columns):
        np.take(table[column], codes[column], out=values[column], mode="clip")
    return np.ascontiguousarray(values.T)


def _read_text(file: BinaryIO) -> NDArray[np.float32]:
    text = b""
    while b"]" not in text:
        line = file.readline()
        if not line:
            raise BadRecordError("cut: a text matrix without its closing bracket")
        text += line
    body = text[: text.index(b"]")].decode("ascii", "replace").strip()
    if not body.startswith("["):
        _refuse(text[:8])
    rows = [line.split() for line in body[1:].splitlines() if line.strip()]
    try:
        return np.array(rows, np.float32).reshape(len(rows), len(rows[0]) if rows else 0)
    except ValueError:
        raise BadRecordError("garbled: text that is no matrix of numbers") from None
