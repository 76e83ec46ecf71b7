"""How many local steps learners take between two averages: functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Literal

LocalSteps = Callable[[float], int]
Warmup = Literal["none", "linear", "exponential", "constant"]


def local_steps(target: int, warmup: Warmup = "none", warmup_epochs: float = 0.0) -> LocalSteps:
    """H by epoch: from 1 to `target` over `warmup_epochs` (paper B app. B.4), then `target`.

    `linear` grows in equal parts, `exponential` by doubling, `constant` stays 1 and jumps.
    """

    def steps(epoch: float) -> int:
        if warmup == "none" or epoch >= warmup_epochs:
            return target
        if warmup == "linear":
            return 1 + int((target - 1) * epoch / warmup_epochs)
        if warmup == "exponential":
            # One stage per power of two below the target, equally long.
            return 2 ** int(epoch / warmup_epochs * max(1, -(-log2(target) // 1)))
        return 1

    return steps
