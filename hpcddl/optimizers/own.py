"""Makes an entry of an optimizer of torch's, or of a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hpcddl.common.own_entries import declared, parameters_of
from hpcddl.optimizers.groups import parameter_groups


def own_optimizer(function: Callable[..., torch.optim.Optimizer]) -> Callable[..., Any]:
    """Makes an entry of a function or class that takes parameters, or groups of them, first.

    The learning rate is the schedule's and no option. Weight decay is as in `sgd`: not on batch
    norm; without the option it is the function's own default. Where torch has a fused step, that is
    taken unless the options say otherwise.
    """
    parameters = parameters_of(function)
    names = list(parameters)[1:]  # the first takes the weights
    of_torch = getattr(function, "__module__", "").startswith("torch.optim")

    def entry(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
        groups: Any = [p for p in model.parameters() if p.requires_grad]
        if "weight_decay" in parameters:
            decay = options.get("weight_decay", parameters["weight_decay"].default)
            groups = parameter_groups(model, 0.0 if decay is inspect.Parameter.empty else decay)
        given = dict(options)
        if of_torch and "fused" in parameters and "foreach" not in options:
            given.setdefault("fused", True)
        if "lr" in parameters:
            given["lr"] = 0.0  # until the schedule sets one
        return function(groups, **given)

    return declared(entry, function, [name for name in names if name != "lr"])
