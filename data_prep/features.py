"""What Kaldi's scripts do to features between disk and network: CMVN, then deltas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.errors import UserError

_VARIANCE_FLOOR = 1e-20
_DELTA_WINDOW = 2


@dataclass(frozen=True)
class Cmvn:
    """Normalisation of one speaker: features * `scale` + `offset`, both (D,) float32."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return features * self.scale + self.offset


def cmvn(stats: NDArray, norm_vars: bool = False) -> Cmvn:
    """From Kaldi's statistics, 2 x (D+1): sums and count, sums of squares and an unused zero.

    Raises ValueError for another shape or a count below one.
    """
    if stats.ndim != 2 or stats.shape[0] != 2 or stats.shape[1] < 2:
        raise ValueError(f"CMVN statistics of shape {stats.shape}, expected 2 x (D+1)")
    stats = stats.astype(np.float64)
    count = stats[0, -1]
    if not (np.isfinite(stats).all() and count >= 1):
        raise ValueError(f"CMVN statistics over {count} frames, expected at least one and no NaN")
    mean = stats[0, :-1] / count
    scale = np.ones_like(mean)
    if norm_vars:
        variance = stats[1, :-1] / count - mean**2
        scale = 1 / np.sqrt(np.maximum(variance, _VARIANCE_FLOOR))
    return Cmvn(scale.astype(np.float32), (-mean * scale).astype(np.float32))


def read_cmvn_options(path: Path) -> tuple[bool, bool]:
    """(norm_means, norm_vars) of a cmvn_opts file; Kaldi's defaults (True, False) without one.

    Raises UserError for an option that is not applied here: the features would differ silently.
    """
    options = {"--norm-means": True, "--norm-vars": False}
    for word in path.read_text().split() if path.is_file() else ():
        name, _, value = word.partition("=")
        if name not in options or value not in ("", "true", "false"):
            allowed = ", ".join(f"{option}=true|false" for option in options)
            raise UserError(f"{path}: {word}: allowed: {allowed}")
        options[name] = value != "false"
    if options["--norm-vars"] and not options["--norm-means"]:
        raise UserError(f"{path}: --norm-vars=true needs --norm-means=true")
    return options["--norm-means"], options["--norm-vars"]


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


def add_deltas(features: NDArray[np.float32], order: int = 2) -> NDArray[np.float32]:
    """(T, D) -> (T, (order+1) D): features, deltas, deltas of deltas.

    Frames beyond the edges repeat the first and last frame *of the features*, whatever the order.
    """
    if order == 0:
        return features
    frames, dimension = features.shape
    reach = order * _DELTA_WINDOW
    padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
    out = np.zeros((frames, (order + 1) * dimension), np.float32)
    for number, kernel in enumerate(delta_kernels(order)):
        block = out[:, number * dimension : (number + 1) * dimension]
        first = reach - len(kernel) // 2
        for step, weight in enumerate(kernel):
            if weight:
                block += weight * padded[first + step : first + step + frames]
    return out


def check_finite(key: str, matrix: NDArray) -> None:
    """Raises UserError naming the utterance and frame where a value is NaN or infinite."""
    bad = ~np.isfinite(matrix)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UserError(
            f"{key}: feature {column} of frame {row} is {matrix[row, column]}, "
            f"expected finite values ({int(bad.sum())} are not)"
        )
