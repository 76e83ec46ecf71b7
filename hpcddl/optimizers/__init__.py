"""Each learner's own update rule u_j, given the gradient. The learning rate is the schedule's."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import nn

from hpcddl.common.options import Table
from hpcddl.optimizers.groups import parameter_groups
from hpcddl.optimizers.lars import lars
from hpcddl.optimizers.momentum import check_nesterov
from hpcddl.optimizers.own import own_optimizer
from hpcddl.optimizers.sign import sign_sgd


def sgd(
    model: nn.Module,
    *,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> torch.optim.Optimizer:
    """SGD with momentum, without dampening; its rate is 0 until the schedule sets one.

    Raises:
        UserError: Nesterov's momentum without momentum.
    """
    check_nesterov(momentum, nesterov)
    groups = parameter_groups(model, weight_decay)
    # Fused: one pass over weights, gradients and momentum instead of four.
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)


OPTIMIZERS = Table({"sgd": sgd, "lars": lars, "sign_sgd": sign_sgd}, own=own_optimizer)
