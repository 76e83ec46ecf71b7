"""LARS: the step of every layer is proportional to the norm of its weights."""

from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from hpcddl.optimizers.groups import parameter_groups
from hpcddl.optimizers.momentum import check_nesterov, with_momentum


class LARS(torch.optim.Optimizer):
    """u = m u + lambda (g + wd w), lambda = trust |w| / (|g| + wd |w|) (You et al. 2017, alg. 1).

    The rate multiplies u (Nesterov: lambda (g + wd w) + m u) and is no part of it, as in `sgd`;
    You et al. keep it inside, which is the same while the rate stays. lambda is 1 in groups without
    `trust`, and where |w| or |g| + wd |w| is 0.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        trust: float | None = None,
    ) -> None:
        defaults = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, "trust": trust, **defaults})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """w <- w - lr * u for every parameter that has a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                direction = self._direction(weights, group)
                torch._foreach_add_(weights, direction, alpha=-group["lr"])

    def _direction(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients: Any = [p.grad for p in weights]
        # A copy even without weight decay: whoever looks at the gradients afterwards finds them.
        change = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["trust"] is not None:
            scales = _scales(weights, gradients, group["trust"], group["weight_decay"])
            torch._foreach_mul_(change, list(scales.unbind()))
        return with_momentum(weights, change, self.state, group)


def _scales(weights: Any, gradients: Any, trust: float, weight_decay: float) -> Tensor:
    """(layers,) lambda of every layer, on the weights' device: a GPU is not waited for."""
    w = torch.stack(torch._foreach_norm(weights))
    below = torch.stack(torch._foreach_norm(gradients)) + weight_decay * w
    return torch.where((w > 0) & (below > 0), trust * w / below, torch.ones_like(w))


def lars(
    model: nn.Module,
    *,
    trust: PositiveFloat = 0.001,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
    scale_vectors: bool = False,
) -> torch.optim.Optimizer:
    """LARS; biases and batch norm (all that is a vector) step as in `sgd` unless `scale_vectors`.

    Weight decay is as in `sgd`: on biases too, never on batch norm.

    Raises:
        UserError: Nesterov's momentum without momentum.
    """
    check_nesterov(momentum, nesterov)
    groups = []
    for group in parameter_groups(model, weight_decay):
        vectors = [] if scale_vectors else [p for p in group["params"] if p.ndim < 2]
        exempt = set(map(id, vectors))
        layers = [p for p in group["params"] if id(p) not in exempt]
        groups.append({**group, "params": layers, "trust": trust})
        groups.append({**group, "params": vectors, "trust": None})
    groups = [group for group in groups if group["params"]]
    return LARS(groups, momentum=momentum, nesterov=nesterov)
