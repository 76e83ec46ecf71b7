"""Momentum of the averages over all learners, beside each learner's own."""

from __future__ import annotations

import torch
from torch import Tensor


class OuterMomentum:
    """u <- m u + change, by which w_sync is then moved (paper B, global momentum).

    Args:
        momentum: m, from 0 to below 1.
        like: a vector (d,) of the change's type and device.
    """

    def __init__(self, momentum: float, like: Tensor) -> None:
        self.momentum = momentum
        self.velocity = torch.zeros_like(like)
        """u (d,)."""

    def __call__(self, change: Tensor) -> Tensor:
        """Returns u (d,), which the next call changes in place."""
        return self.velocity.mul_(self.momentum).add_(change)
