"""Dynamic loss scaling: float16 gradients that do not vanish, and rarely overflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor


class LossScale:
    """Backward starts from s * loss, and the gradient is divided by s (Micikevicius et al. 2018).

    s is halved by every gradient that is not finite, whose step is skipped, and doubled after
    `patience` good steps in a row. It is never below 1: what overflows then is the gradient itself,
    and the run diverges by it. The gradient does not depend on s, a power of two, so each learner
    may have its own.
    """

    def __init__(self, start: float = 2.0**16, patience: int = 2000) -> None:
        self.value = start  # s
        self.patience = patience
        self.good = 0  # steps since the last change of s

    def scale(self, loss: Tensor) -> Tensor:
        """The loss that backward starts from."""
        return loss * self.value

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> bool:
        """p.grad <- p.grad / s in place; returns whether to step along it."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        found = torch.zeros(1, device=gradients[0].device)
        inverse = torch.full_like(found, 1 / self.value)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, inverse)
        if found.item() and self.value > 1:
            self.value, self.good = max(1.0, self.value / 2), 0
            return False
        self.good += 1
        if self.good == self.patience:
            self.value, self.good = self.value * 2, 0
        return True

    def agree(self, comm: MPI.Intracomm) -> None:
        """Gives all learners the smallest s, and the smallest number of good steps."""
        both = np.array([self.value, self.good], np.float64)
        comm.Allreduce(MPI.IN_PLACE, both, MPI.MIN)
        self.value, self.good = float(both[0]), int(both[1])

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.value, self.good = state["value"], state["good"]
