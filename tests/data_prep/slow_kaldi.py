"""What the bytes of Kaldi's records say, by plain Python and doubles: slow, strict and independent.

Every function returns None where the bytes say nothing, because they are cut or garbled.
"""

import struct

import numpy as np
from numpy.typing import NDArray


def single(number: float) -> float:
    """Rounded to a float; infinite where it is too large."""
    try:
        return struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def matrix(data: bytes) -> NDArray[np.float64] | None:
    """The matrix at the beginning of `data`."""
    if not data.startswith(b"\0B"):
        return _text_matrix(data)
    kind, blank, rest = data[2:].partition(b" ")
    if not blank:
        return None
    try:
        if kind in (b"FM", b"DM"):
            one, rows, other, columns = struct.unpack_from("<bibi", rest)
            if (one, other) != (4, 4):
                return None
            return _cells(rest[10:], rows, columns, "f" if kind == b"FM" else "d")
        if kind in (b"CM", b"CM2", b"CM3"):
            low, extent, rows, columns = struct.unpack_from("<ffii", rest)
            return _compressed(rest[16:], kind, low, extent, rows, columns)
    except struct.error:
        pass
    return None


def _cells(data: bytes, rows: int, columns: int, kind: str) -> NDArray[np.float64] | None:
    size = struct.calcsize(kind)
    if rows < 0 or columns < 0 or len(data) < rows * columns * size:
        return None
    values = struct.unpack_from(f"<{rows * columns}{kind}", data)
    return np.array(values, np.float64).reshape(rows, columns)


def _compressed(
    data: bytes, kind: bytes, low: float, extent: float, rows: int, columns: int
) -> NDArray[np.float64] | None:
    if kind != b"CM":
        cells = _cells(data, rows, columns, "H" if kind == b"CM2" else "B")
        if cells is None:
            return None
        step = single(extent * (1.0 / (65535.0 if kind == b"CM2" else 255.0)))
        return np.array([[single(low + single(v * step)) for v in row] for row in cells]).reshape(
            rows, columns
        )
    quantiles = _cells(data, columns, 4, "H")
    codes = _cells(data[8 * columns :], columns, rows, "B")
    if quantiles is None or codes is None:
        return None
    scale = single(extent * single(1.52590218966964e-05))
    out = np.empty((rows, columns))
    for column in range(columns):
        a, b, c, d = (single(low + single(scale * q)) for q in quantiles[column])
        for row in range(rows):
            out[row, column] = _piece(int(codes[column, row]), a, b, c, d)
    return out


def _piece(code: int, a: float, b: float, c: float, d: float) -> float:
    if code <= 64:
        return single(a + single(single(b - a) * code) * (1 / 64))
    if code <= 192:
        return single(b + single(single(c - b) * (code - 64)) * (1 / 128))
    return single(c + single(single(d - c) * (code - 192)) * (1 / 63))


def _text_matrix(data: bytes) -> NDArray[np.float64] | None:
    before, bracket, rest = data.partition(b"[")
    body, closing, _ = rest.partition(b"]")
    if before.strip() or not bracket or not closing:
        return None
    rows = [line.split() for line in body.replace(b";", b"\n").split(b"\n") if line.split()]
    try:
        values = [[single(_number(word)) for word in row] for row in rows]
    except ValueError:
        return None
    if len({len(row) for row in values}) > 1:
        return None
    return np.array(values, np.float64).reshape(len(values), -1 if values else 0)


def _number(word: bytes) -> float:
    if b"_" in word:
        raise ValueError(word)
    return float(word.decode("ascii"))


def alignments(data: bytes) -> list[tuple[str, list[int]]] | None:
    """All utterances of a file and their integers, binary and text."""
    found, at = [], 0
    while at < len(data):
        end = data.find(b" ", at)
        key = data[at:end]
        if end <= at or b"\n" in key:
            return None
        at = end + 1
        try:
            name = key.decode()
            if data[at : at + 1] == b"\0":
                mark, size, count = struct.unpack_from("<2sbi", data, at)
                cells = struct.unpack_from("<" + "bi" * count, data, at + 7)
                if mark != b"\0B" or size != 4 or set(cells[::2]) - {4}:
                    return None
                found.append((name, list(cells[1::2])))
                at += 7 + 5 * count
            else:
                end = data.index(b"\n", at)
                words = data[at:end].split()
                numbers = [int(word) for word in words]
                if any(b"_" in w for w in words) or any(abs(2 * n + 1) > 2**32 for n in numbers):
                    return None
                found.append((name, numbers))
                at = end + 1
        except (struct.error, ValueError):
            return None
    return found


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def token(self, *allowed: bytes) -> bytes:
        for token in allowed:
            if self.data.startswith(token, self.at):
                self.at += len(token)
                return token
        raise ValueError(allowed)

    def integer(self) -> int:
        size, value = struct.unpack_from("<bi", self.data, self.at)
        if size != 4:
            raise ValueError(size)
        self.at += 5
        return value

    def vector(self) -> list[int]:
        count = self.integer()
        values = struct.unpack_from(f"<{count}i", self.data, self.at)
        self.at += 4 * count
        return list(values)


def transition_pdfs(data: bytes) -> list[int] | None:
    """The pdf of each transition-id, from 1, at the head of a model."""
    try:
        return _transition_pdfs(_Cursor(data))
    except (ValueError, IndexError, struct.error):
        return None


def _transition_pdfs(cursor: _Cursor) -> list[int]:
    cursor.token(b"\0B<TransitionModel> <Topology> ")
    cursor.vector()
    entry_of = cursor.vector()
    entries = cursor.integer()
    separate = entries == -1
    if separate:
        entries = cursor.integer()
    topology = []
    for _ in range(entries):
        states = []
        for _ in range(cursor.integer()):
            cursor.integer()
            if separate:
                cursor.integer()
            arcs = []
            for _ in range(cursor.integer()):
                arcs.append(cursor.integer())
                struct.unpack_from("<bf", cursor.data, cursor.at)
                cursor.at += 5
            states.append(arcs)
        topology.append(states)
    cursor.token(b"</Topology> ")
    kind = cursor.token(b"<Tuples> ", b"<Triples> ")
    pdfs = []
    for _ in range(cursor.integer()):
        phone, state, forward = cursor.integer(), cursor.integer(), cursor.integer()
        loop = cursor.integer() if kind == b"<Tuples> " else forward
        if phone < 0 or entry_of[phone] < 0 or state < 0:
            raise ValueError(phone)
        arcs = topology[entry_of[phone]][state]
        pdfs += [loop if to == state else forward for to in arcs]
    cursor.token(kind.replace(b"<", b"</"))
    return pdfs
