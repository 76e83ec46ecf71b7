"""The residual networks of He et al. (2016), section 4.2, for small images."""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from hpcddl.errors import UserError


class Block(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x with no weights (their option A).

    A block that halves the image also widens it: x' is then every second pixel of x, with channels
    of zeros added.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if channels == width else 2
        self.added = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        kept = x[:, :, :: self.stride, :: self.stride]
        # Padded from the last axis back: none to columns and rows, `added` after the channels.
        return relu(out + pad(kept, (0, 0, 0, 0, 0, self.added)))


class ResNet(nn.Module):
    """Pixels (B, channels, size, size), 0 .. 255, to scores (B, C); 6 `blocks` + 2 layers."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, classes: int, blocks: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.stem = nn.Sequential(
            nn.Conv2d(len(mean), 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        widths = [16] * blocks + [32] * blocks + [64] * blocks
        self.blocks = nn.Sequential(*map(Block, [16, *widths], widths))
        self.output = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.blocks(self.stem((pixels - self.mean) / self.std))
        scores: Tensor = self.output(images.mean((2, 3)))
        return scores


def resnet20(
    shape: tuple[int, ...],
    classes: int,
    *,
    mean: tuple[float, ...] = (125.3, 123.0, 113.9),
    std: tuple[PositiveFloat, ...] = (63.0, 62.1, 66.7),
) -> nn.Module:
    """ResNet-20: 269,722 weights for 10 classes and colour.

    Convolutions 3*16*9 + 6*16*16*9 + (16*32 + 5*32*32)*9 + (32*64 + 5*64*64)*9 = 267,696, batch
    norms 2*(7*16 + 6*32 + 6*64) = 1,376, output 64*10 + 10 = 650. Convolutions start from
    N(0, 2/(9 c)) for c channels in (He et al. 2015), the output layer from N(0, 0.01^2) (paper B
    app. A.2); batch norm starts as the identity.

    Args:
        mean: of each channel's pixels, 0 .. 255; it and `std` are CIFAR-10's unless given.

    Raises:
        UserError: samples that are not square images of the channels that `mean` and `std` have.
    """
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 4:
        raise UserError(
            "model resnet20: takes square images of at least 4 x 4 pixels, "
            f"the data has samples of {shape}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise UserError(
                f"model.{name}={list(values)}: takes one number for each of {shape[0]} channels"
            )
    return ResNet(classes, 3, mean, std)
