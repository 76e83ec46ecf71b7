"""Kaldi's compressed speech features (CM): a byte per value between four quantiles per column.

A table of 256 floats per column decodes a matrix; normalising the table instead of the frames gives
the same bits for less. Layout and arithmetic: src/matrix/compressed-matrix.{h,cc}.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.scratch import Scratch

# Changes values (..., D) in place, each one by its column alone.
Normalise = Callable[[NDArray[np.float32]], None]

# Three straight pieces: from byte 0, 64 and 192, which take 64, 128 and 63 steps.
_PIECES = np.repeat(np.eye(3, dtype=np.float32), (65, 128, 63), axis=1)
_STEPS = _PIECES * (np.arange(256, dtype=np.float32) - np.array([[0], [64], [192]], np.float32))
# A scale that is a power of two may come before the product: it is exact.
_SCALES = np.array([1 / 64, 1 / 128, 1], np.float32)
_TOGETHER = 64  # columns, so that what they need stays in cache
_OFFSETS = np.arange(0, 256 * _TOGETHER, 256, dtype=np.uint16)[:, None]
_LAST, _LAST_SCALE = 193, np.float64(1 / 63)


class ColumnDecoder:
    """Decodes the values of CM matrices, to the last bit as Kaldi does, and owns the buffers."""

    def __init__(self) -> None:
        self._products = Scratch(np.float32)
        self._tables = Scratch(np.float32)
        self._indices = Scratch(np.intp)
        self._values = Scratch(np.float32)

    def decode(
        self,
        data: bytes,
        minimum: float,
        extent: float,
        normalise: Normalise | None,
        out: NDArray[np.float32],
    ) -> None:
        """Fills `out` (T, D) from `data`: D x 4 quantiles of 16 bits, then D x T bytes."""
        rows, columns = out.shape
        table = self._table(np.frombuffer(data, "<u2", 4 * columns), minimum, extent)
        if normalise is not None:
            normalise(table.T)
        codes = np.frombuffer(data, "u1", offset=8 * columns).reshape(columns, rows)
        for begin in range(0, columns, _TOGETHER):
            part = codes[begin : begin + _TOGETHER]
            # Columns are added in two bytes and widened last: wide integers are memory traffic.
            places = part.astype(np.uint16)
            places += _OFFSETS[: len(part)]
            indices = self._indices.array(len(part), rows)
            indices[:] = places
            values = self._values.array(len(part), rows)
            # No index is outside; a mode spares the check.
            table[begin:].reshape(-1).take(indices, out=values, mode="wrap")
            out[:, begin : begin + _TOGETHER] = values.T

    def _table(
        self, quantiles: NDArray[np.uint16], minimum: float, extent: float
    ) -> NDArray[np.float32]:
        """(D, 256) the value of each byte."""
        points = quantiles.reshape(-1, 4).astype(np.float32)
        points *= np.float32(extent) * np.float32(1.52590218966964e-05)
        points += np.float32(minimum)
        starts = points[:, :3]
        slopes = points[:, 1:] - starts
        slopes *= _SCALES
        # Matrix products with one term that is not zero: exact, and faster than broadcasting.
        products = np.matmul(slopes, _STEPS, out=self._products.array(len(points), 256))
        table = np.matmul(starts, _PIECES, out=self._tables.array(len(points), 256))
        table += products
        # As Kaldi's compiler has it: products in single, sums in double precision. A single sum of
        # two singles is the rounded double one, so only the inexact scale 1/63 needs doubles.
        last = products[:, _LAST:] * _LAST_SCALE
        np.add(last, starts[:, 2:], out=table[:, _LAST:])
        return table
