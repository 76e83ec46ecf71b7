"""ShuffleNetV2 (Ma et al. 2018), for small images."""

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle

from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised


class Unit(nn.Module):
    """[left, right], their channels interleaved (their fig. 3c and 3d).

    At stride 1, left is the first half of x's channels and right a function of the others; at
    stride 2 both are functions of x.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        self.left: nn.Module | None = None
        if stride == 2:
            self.left = nn.Sequential(
                ConvNorm(channels, channels, 3, stride, groups=channels, relu=False),
                ConvNorm(channels, half, 1),
            )
        self.right = nn.Sequential(
            ConvNorm(channels if stride == 2 else half, half, 1),
            ConvNorm(half, half, 3, stride, groups=half, relu=False),
            ConvNorm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        return channel_shuffle(torch.cat([left, self.right(right)], 1), 2)


def shufflenet_v2(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """ShuffleNetV2 1x of paper A table 1: 1,263,854 weights for 10 classes and colour.

    Its table 5 with a stem of stride 1 and no pooling. Paper A names no initialisation: torch's.
    `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("shufflenet_v2", shape, mean, std, smallest=8)
    units = stages(Unit, 24, [(116, 4, 2), (232, 8, 2), (464, 4, 2)])
    layers = [ConvNorm(shape[0], 24), *units, ConvNorm(464, 1024, 1)]
    return classifier(pixels, layers, 1024, classes)
