"""A learner's whole local step: unscale, clip, add noise, step."""

from __future__ import annotations

import torch

from hpcddl.common.flat import FlatWeights
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.optimizers.noise import GradientNoise


class GradientStep:
    """Steps weights along their gradient, which is the learners' mean or this learner's own.

    The gradient is divided by the loss scale first, and no step is taken (u_j = 0) where it has
    overflowed. Then all tensors are clipped as one vector, g <- g * min(1, clip_norm / |g|)
    (Pascanu et al. 2013), and noise is added.

    Args:
        optimizer: makes u_j of what is then the gradient.
        clip_norm: the largest norm of a gradient; None: any.
        noise: added to every gradient; None: none.
        loss_scale: what backward multiplied the loss by; None: nothing.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float | None = None,
        noise: GradientNoise | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.clip_norm, self.noise, self.loss_scale = clip_norm, noise, loss_scale

    def take(self, weights: FlatWeights, step: int) -> None:
        """Changes `weights` and their gradients in place; `step` updates came before."""
        if self.loss_scale is not None and not self.loss_scale.unscale(weights.parameters):
            return
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights.parameters, self.clip_norm)
        if self.noise is not None:
            self.noise.add(weights, step)
        self.optimizer.step()
