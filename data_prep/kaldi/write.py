"""Writes Kaldi's binary records: matrices, alignments, transition models."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_ELEMENT = np.dtype([("size", "u1"), ("value", "<i4")])


def _ints(values: NDArray | Sequence[int]) -> bytes:
    """Each integer after a byte with its size."""
    elements = np.empty(len(values), _ELEMENT)
    elements["size"] = 4
    elements["value"] = values
    return elements.tobytes()


def write_compressed(file: BinaryIO, key: str, matrix: NDArray[np.float32]) -> int:
    """Appends (T, D) as a speech-feature matrix (CM); returns the offset that an scp file names.

    The rounding is Kaldi's (src/matrix/compressed-matrix.cc). Raises ValueError under five rows,
    where Kaldi computes quantiles by other rules.
    """
    rows, columns = matrix.shape
    if rows < 5:
        raise ValueError(f"{key}: {rows} rows, expected at least 5")
    low, high = np.float32(matrix.min()), np.float32(matrix.max())
    if low == high:
        high = low + 1 + abs(low)
    extent = np.float32(high - low)
    ranked = np.sort(matrix, axis=0)
    quarter = rows // 4
    points = ranked[[0, quarter, 3 * quarter, rows - 1]]  # (4, D)
    codes = (np.clip((points - low) / extent, 0, 1) * 65535 + 0.499).astype(np.int64)
    # Strictly increasing, so that no piece has width zero.
    codes[0] = np.minimum(codes[0], 65532)
    codes[1] = np.minimum(np.maximum(codes[1], codes[0] + 1), 65533)
    codes[2] = np.minimum(np.maximum(codes[2], codes[1] + 1), 65534)
    codes[3] = np.maximum(codes[3], codes[2] + 1)
    p0, p25, p75, p100 = (low + extent * codes / 65535).astype(np.float32)
    with np.errstate(over="ignore"):
        first = np.clip((matrix - p0) / (p25 - p0) * 64 + 0.5, 0, 64)
        middle = np.clip((matrix - p25) / (p75 - p25) * 128 + 64.5, 64, 192)
        last = np.clip((matrix - p75) / (p100 - p75) * 63 + 192.5, 192, 255)
    values = np.where(matrix < p25, first, np.where(matrix < p75, middle, last)).astype(np.uint8)
    file.write(key.encode() + b" ")
    offset = file.tell()
    file.write(b"\0BCM " + struct.pack("<ffii", low, extent, rows, columns))
    file.write(codes.T.astype("<u2").tobytes() + values.T.tobytes())
    return offset


def write_float(file: BinaryIO, key: str, matrix: NDArray[np.float32]) -> int:
    """Appends a float matrix (FM), such as a decoder's scores; returns its offset."""
    file.write(key.encode() + b" ")
    offset = file.tell()
    file.write(b"\0BFM " + _ints(matrix.shape) + matrix.astype("<f4", copy=False).tobytes())
    return offset


def write_double(file: BinaryIO, key: str, matrix: NDArray[np.float64]) -> int:
    """Appends a double matrix (DM), such as CMVN statistics; returns its offset."""
    file.write(key.encode() + b" ")
    offset = file.tell()
    file.write(b"\0BDM " + _ints(matrix.shape) + matrix.astype("<f8").tobytes())
    return offset


def write_ids(file: BinaryIO, key: str, ids: NDArray[np.int32]) -> None:
    """Appends (T,) integers, such as an alignment."""
    file.write(key.encode() + b" \0B" + _ints([len(ids)]) + _ints(ids))


def transition_model_bytes(
    phones: int, states: int, tuples: NDArray[np.int32], stay: NDArray[np.float64]
) -> bytes:
    """A binary transition model: `phones` phones, from 1, of `states` left-to-right states each.

    Every state has a self-loop and a step to the next. `tuples` (n, 3) holds phone, state and pdf,
    in ascending order, and `stay` (n,) the probability of each one's self-loop. Only the transition
    model: no acoustic model follows, as Kaldi's ali-to-pdf and show-transitions need none.
    """
    every = np.arange(1, phones + 1, dtype="<i4")
    parts = [b"\0B<TransitionModel> <Topology> "]
    entry_of = np.zeros(phones + 1, "<i4")
    entry_of[0] = -1
    for vector in (every, entry_of):
        parts.append(_ints([len(vector)]) + vector.tobytes())
    parts.append(_ints([1, states + 1]))  # one entry; the state after the last emits nothing
    for state in range(states):
        parts.append(_ints([state, 2]))
        for destination, probability in ((state, 0.75), (state + 1, 0.25)):
            parts.append(_ints([destination]) + struct.pack("<bf", 4, probability))
    parts.append(_ints([-1, 0]) + b"</Topology> ")
    parts.append(b"<Triples> " + _ints([len(tuples)]) + _ints(tuples.ravel()) + b"</Triples> ")
    logs = np.append(0.0, np.log(np.stack([stay, 1 - stay], axis=1))).astype("<f4")
    parts.append(b"<LogProbs> FV " + _ints([len(logs)]) + logs.tobytes())
    parts.append(b"</LogProbs> </TransitionModel> ")
    return b"".join(parts)
