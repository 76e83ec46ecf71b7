"""The fully connected network of paper A's study of noise (its fig. 2)."""

from math import prod
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn


class MLP(nn.Module):
    """Samples (B, ...), flattened and multiplied by `scale`, to scores (B, C); ReLU between."""

    def __init__(self, features: int, hidden: list[int], classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, classes))

    def forward(self, samples: Tensor) -> Tensor:
        scores: Tensor = self.layers(self.scale * samples.flatten(1))
        return scores


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    hidden: Annotated[list[PositiveInt], Field(min_length=1)] = [50, 50],  # noqa: B006
    scale: PositiveFloat | None = None,
) -> nn.Module:
    """The paper's by default: 784-50-50-10 for MNIST, 42,310 weights.

    The paper names no activation; ReLU was chosen. `scale` multiplies every feature; without it
    pixels (samples of three axes) are brought from 0 .. 255 to 0 .. 1 and vectors stay as they are.
    """
    if scale is None:
        scale = 1 / 255 if len(shape) == 3 else 1.0
    return MLP(prod(shape), hidden, classes, scale)
