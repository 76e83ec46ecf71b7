"""Random directions in weight space along which a loss landscape is drawn."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from hpcddl.common.flat import FlatWeights


def random_direction(model: nn.Module, seed: int, normalise: str) -> Tensor:
    """d (d,) ~ N(0, I), normalised, in the order, type and place of `FlatWeights`.

    A function of the seed, the weights' shapes and, where normalised, the weights: the same on
    every rank and machine, drawn in float64 whatever the weights' type.

    Args:
        normalise: one of `NORMALISE`.
    """
    weights = FlatWeights(model)
    random = np.random.default_rng(seed)
    out = weights.empty()
    for piece, weight in zip(weights.views(out), weights.parameters, strict=True):
        drawn = torch.from_numpy(random.standard_normal(weight.shape))
        piece.copy_(NORMALISE[normalise](drawn, weight.detach().to("cpu", torch.float64)))
    return out


def unnormalised(drawn: Tensor, weight: Tensor) -> Tensor:
    """Leaves d as it was drawn: a step of 1 changes every weight by N(0, 1)."""
    return drawn


def filter_normalised(drawn: Tensor, weight: Tensor) -> Tensor:
    """d_i |w_i| / |d_i| for each filter i: a step of 1 is as long as the filter (Li et al. 2018).

    A filter is what makes one output: weight[i], of a linear or recurrent layer one row. Biases
    and normalisation's scales and shifts (tensors of one dimension) get the direction 0.
    """
    if drawn.dim() < 2:
        return torch.zeros_like(drawn)
    inner = tuple(range(1, drawn.dim()))
    lengths = torch.linalg.vector_norm(weight, dim=inner, keepdim=True)
    return drawn * (lengths / torch.linalg.vector_norm(drawn, dim=inner, keepdim=True))


NORMALISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "filter": filter_normalised,
    "none": unnormalised,
}
