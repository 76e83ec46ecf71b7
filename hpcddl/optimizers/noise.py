"""Gaussian noise that is the same on every learner."""

import numpy as np
import torch
from torch import Tensor

from hpcddl.common.flat import FlatWeights


class GradientNoise:
    """g <- g + N(0, s_t^2 I) with s_t^2 = eta / (1 + t)^gamma after t updates.

    Neelakantan et al. 2015; the same on every learner (paper B app. C.5), from (seed, t) alone.
    """

    def __init__(self, eta: float, gamma: float, seed: int) -> None:
        self.eta, self.gamma, self.seed = eta, gamma, seed

    def add(self, weights: FlatWeights, step: int) -> None:
        """Adds update `step`'s noise to the gradient of `weights`."""
        std = (self.eta / (1 + step) ** self.gamma) ** 0.5
        noise = draw(weights.size, weights.parameters[0], std, self.seed, step, 0, 1)
        pairs = zip(weights.parameters, weights.views(noise), strict=True)
        used = [(p.grad, piece) for p, piece in pairs if p.grad is not None]
        gradients, pieces = zip(*used, strict=True)
        torch._foreach_add_(gradients, pieces)


def draw(size: int, like: Tensor, std: float, *key: int) -> Tensor:
    """Gaussian noise (size,) that depends on `key` alone, so that a resumed run repeats it."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(size, dtype=like.dtype, device=like.device, generator=generator).mul_(std)
