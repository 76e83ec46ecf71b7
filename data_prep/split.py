"""Chooses the held-out samples of a set that comes without a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError


def heldout_mask(samples: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N,) true for the `fraction` of the samples that is held out, drawn by `seed`.

    At least one sample is on either side.

    Raises:
        UserError: there are fewer than two.
    """
    if samples < 2:
        raise UserError(f"{samples} samples cannot be split; must be at least 2")
    count = min(max(1, round(fraction * samples)), samples - 1)
    mask = np.zeros(samples, np.bool_)
    mask[np.random.default_rng(seed).permutation(samples)[:count]] = True
    return mask
