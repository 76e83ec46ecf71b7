"""signSGD: a step along the sign of the direction."""

from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat
from torch import nn

from hpcddl.optimizers.groups import parameter_groups
from hpcddl.optimizers.momentum import check_nesterov, with_momentum


class SignSGD(torch.optim.Optimizer):
    """w <- w - lr sign(u), u as in SGD with weight decay and momentum.

    Bernstein et al. 2018; it is the local step of local signSGD (paper B alg. 3). sign(0) is 0;
    what is not finite becomes NaN.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **defaults})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                gradients: Any = [p.grad for p in weights]
                change = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
                direction = with_momentum(weights, change, self.state, group)
                signs: Any = torch._foreach_sign(direction)
                # torch's sign of NaN is 0: who has diverged would look as if it had converged.
                torch._foreach_add_(signs, torch._foreach_sub(direction, direction))
                torch._foreach_add_(weights, signs, alpha=-group["lr"])


def sign_sgd(
    model: nn.Module,
    *,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> torch.optim.Optimizer:
    """signSGD; weight decay is part of u, and never on batch norm.

    Raises:
        UserError: Nesterov's momentum without momentum.
    """
    check_nesterov(momentum, nesterov)
    groups = parameter_groups(model, weight_decay)
    return SignSGD(groups, momentum=momentum, nesterov=nesterov)
