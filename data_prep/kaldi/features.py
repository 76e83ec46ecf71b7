"""Normalises features as Kaldi's scripts do: CMVN, then deltas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.scratch import Scratch
from hpcddl.common.errors import UserError

_VARIANCE_FLOOR = 1e-20
_DELTA_WINDOW = 2
_BLOCK = 8  # frames


@dataclass(frozen=True)
class Cmvn:
    """Normalisation of one speaker: features * `scale` + `offset`, both (D,) float32."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    norm_vars: bool = True  # False: all scales are one

    def apply(self, features: NDArray[np.float32]) -> None:
        """Normalises (..., D) in place."""
        if self.norm_vars:
            features *= self.scale
        features += self.offset


def cmvn(stats: NDArray, norm_vars: bool = False, skip_dims: tuple[int, ...] = ()) -> Cmvn:
    """From Kaldi's statistics, 2 x (D+1): sums and count, sums of squares and an unused zero.

    The dimensions `skip_dims` are left as they are. Raises ValueError for statistics of another
    shape, a count below one or a dimension that they do not have (src/transform/cmvn.cc).
    """
    if stats.ndim != 2 or stats.shape[0] != 2 or stats.shape[1] < 2:
        raise ValueError(f"CMVN statistics of shape {stats.shape}, expected 2 x (D+1)")
    stats = stats.astype(np.float64)
    count = stats[0, -1]
    if not (np.isfinite(stats).all() and count >= 1):
        raise ValueError(f"CMVN statistics over {count} frames, expected at least one and no NaN")
    if skip_dims and max(skip_dims) >= stats.shape[1] - 1:
        raise ValueError(f"skip-dims has {max(skip_dims)}: must be 0 .. {stats.shape[1] - 2}")
    skipped = list(skip_dims)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = stats[0, :-1] / count
        scale = np.ones_like(mean)
        if norm_vars:
            variance = stats[1, :-1] / count - mean**2
            scale = 1 / np.sqrt(np.maximum(variance, _VARIANCE_FLOOR))
        mean[skipped], scale[skipped] = 0, 1
        made = Cmvn(scale.astype(np.float32), (-mean * scale).astype(np.float32), norm_vars)
    if not np.isfinite(made.offset).all():
        raise ValueError(f"CMVN statistics with means up to {np.abs(mean).max():.3g}, too large")
    return made


class CmvnOptions(NamedTuple):
    """Options of Kaldi's apply-cmvn, with its defaults."""

    norm_means: bool = True
    norm_vars: bool = False
    skip_dims: tuple[int, ...] = ()


def read_cmvn_options(path: Path) -> CmvnOptions:
    """The options in a cmvn_opts file; Kaldi's defaults without one.

    Raises UserError for an option that is not applied here: the features would differ silently.
    """
    options = CmvnOptions()
    for word in path.read_text().split() if path.is_file() else ():
        name, equals, value = word.partition("=")
        try:
            if not name.startswith("--"):
                raise ValueError(f"must be {_ALLOWED}")
            options = with_cmvn_option(options, name[2:], value if equals else "true")
        except ValueError as error:
            raise UserError(f"{path}: {word}: {error}") from None
    if options.norm_vars and not options.norm_means:
        raise UserError(f"{path}: --norm-vars=true needs --norm-means=true")
    return options


_ALLOWED = "norm-means=true|false, norm-vars=true|false, skip-dims=N:N..."


def with_cmvn_option(options: CmvnOptions, name: str, value: str) -> CmvnOptions:
    """`options` with one of them replaced, by its name in Kaldi.

    Raises ValueError saying what is allowed for an unknown name or value.
    """
    if name == "skip-dims":
        dims = value.split(":") if value else []
        if all(dim.isascii() and dim.isdecimal() for dim in dims):
            return options._replace(skip_dims=tuple(map(int, dims)))
    elif name in ("norm-means", "norm-vars") and value in ("true", "false"):
        wanted = value == "true"
        if name == "norm-means":
            return options._replace(norm_means=wanted)
        return options._replace(norm_vars=wanted)
    raise ValueError(f"must be {_ALLOWED}")


def whole_blocks(frames: int) -> int:
    """`frames` rounded up to a multiple of the block that Deltas works by."""
    return -(-frames // _BLOCK) * _BLOCK


class Deltas:
    """Deltas 0 .. `order` of one utterance after the other, in a buffer that is reused."""

    def __init__(self, order: int) -> None:
        self._reach = order * _DELTA_WINDOW
        # Blocks of frames are computed by matrix products: fewer passes over memory than taps.
        self._bands = [_band(kernel) for kernel in delta_kernels(order)[1:]]
        self._buffer = Scratch(np.float32)
        self._padded = np.empty((0, 0), np.float32)
        self._end = 0

    def features(self, frames: int, dimension: int) -> NDArray[np.float32]:
        """(T, D) to be filled with the features, all finite, before `write`."""
        rows = whole_blocks(frames) + 2 * self._reach
        self._padded = self._buffer.array(rows, dimension)
        self._end = self._reach + frames
        return self._padded[self._reach : self._end]

    def write(self, out: NDArray[np.float32]) -> None:
        """Fills `out` (T', (order+1) D), T' whole blocks; rows past the last frame are undefined.

        T' may be less than T, and is at most T rounded up.
        """
        padded, reach = self._padded, self._reach
        rows, dimension = len(out), padded.shape[1]
        out[:, :dimension] = padded[reach : reach + rows]
        if not rows or not reach:
            return
        padded[:reach] = padded[reach]
        padded[self._end :] = padded[self._end - 1]
        # The rows of a block stay rows of `out`, so this is a view.
        blocks = out.reshape(-1, _BLOCK, out.shape[1])
        for order, band in enumerate(self._bands, 1):
            first = reach - order * _DELTA_WINDOW
            windows = _windows(padded[first:], len(blocks), band.shape[1])
            block = blocks[:, :, order * dimension : (order + 1) * dimension]
            np.matmul(band, windows, out=block)


def _band(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, B + taps - 1): row b has the kernel at b."""
    band = np.zeros((_BLOCK, _BLOCK + len(kernel) - 1), np.float32)
    for row in range(_BLOCK):
        band[row, row : row + len(kernel)] = kernel
    return band


def _windows(rows: NDArray[np.float32], count: int, length: int) -> NDArray[np.float32]:
    """(count, length, D) views of contiguous `rows` that begin every B rows."""
    step = rows.strides[0]
    shape = (count, length, rows.shape[1])
    return np.ndarray(shape, rows.dtype, rows, 0, (_BLOCK * step, step, rows.strides[1]))


def delta_kernels(order: int) -> list[NDArray[np.float32]]:
    """Weights of the frames around the current one for deltas 0 .. order; lengths 1, 5, 9, ...

    The slope of a line fitted over two frames on each side, applied again for each order
    (src/feat/feature-functions.cc).
    """
    steps = np.arange(-_DELTA_WINDOW, _DELTA_WINDOW + 1, dtype=np.float64)
    kernels = [np.ones(1)]
    for _ in range(order):
        kernels.append(np.convolve(kernels[-1], steps / (steps**2).sum()))
    return [kernel.astype(np.float32) for kernel in kernels]


def check_finite(key: str, matrix: NDArray, source: object = "") -> None:
    """Raises UserError naming utterance, `source` and frame where a value is NaN or infinite."""
    flat = matrix.reshape(-1)
    # One fast pass: the sum of squares of values of which one is not finite is not finite.
    if math.isfinite(flat @ flat):
        return
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        where = f"{key}: {source}" if source else key
        raise UserError(
            f"{where}: feature {column} of frame {row} is {matrix[row, column]}, "
            f"expected finite values ({int((~finite).sum())} are not)"
        )
