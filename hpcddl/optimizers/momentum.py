"""Momentum without dampening, as torch's SGD has it, for optimizers that step in their own way."""

from typing import Any

import torch
from torch import Tensor

from hpcddl.common.errors import UserError


def check_nesterov(momentum: float, nesterov: bool) -> None:
    """Raises UserError for Nesterov's momentum without momentum."""
    if nesterov and not momentum:
        raise UserError("optimizer.nesterov=true: needs optimizer.momentum above 0")


def with_momentum(
    weights: list[Tensor], change: Any, state: dict[Tensor, Any], group: dict[str, Any]
) -> list[Tensor]:
    """u <- m u + change; returns u, or change + m u (Nesterov). Overwrites `change`.

    Args:
        state: of the optimizer; u is kept in it as `momentum_buffer`.
        group: with `momentum` m and `nesterov`.
    """
    momentum = group["momentum"]
    if not momentum:
        return list(change)
    for p in weights:
        if not state[p]:
            state[p]["momentum_buffer"] = torch.zeros_like(p)
    buffers = [state[p]["momentum_buffer"] for p in weights]
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, change)
    if not group["nesterov"]:
        return buffers
    torch._foreach_add_(change, buffers, alpha=momentum)
    return list(change)
