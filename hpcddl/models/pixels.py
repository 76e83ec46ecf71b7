"""Images as the networks take them: pixels 0 .. 255, normalised by channel (paper B app. A.1)."""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from hpcddl.common.errors import UserError

Mean = tuple[float, ...]
Std = tuple[PositiveFloat, ...]

CIFAR10_MEAN: Mean = (125.3, 123.0, 113.9)
CIFAR10_STD: Std = (63.0, 62.1, 66.7)


class Pixels(nn.Module):
    """(x - mean) / std, channel by channel; x is (B, channels, size, size)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Mean, std: Std) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def normalised(model: str, shape: tuple[int, ...], mean: Mean, std: Std, smallest: int) -> Pixels:
    """The normalisation of samples of `shape`, for the network named `model`.

    Raises:
        UserError: samples that are not square images of at least `smallest` x `smallest` pixels,
            with the channels that `mean` and `std` have.
    """
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < smallest:
        raise UserError(
            f"model {model}: takes square images of at least {smallest} x {smallest} pixels, "
            f"the data has samples of {shape}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise UserError(
                f"model.{name}={list(values)}: takes one number for each of {shape[0]} channels"
            )
    return Pixels(mean, std)
