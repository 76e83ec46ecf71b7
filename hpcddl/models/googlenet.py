"""GoogLeNet (Szegedy et al. 2015), for small images."""

from functools import partial

import torch
from torch import Tensor, nn

from hpcddl.models.layers import ConvNorm, classifier
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised

_Conv = partial(ConvNorm, bias=True)


class Inception(nn.Module):
    """Four branches side by side: 1x1; 3x3; two 3x3 in place of 5x5; max-pool (their fig. 2b).

    `one`, `three`, `five` and `pool` are the channels that each gives; `reduce3` and `reduce5`
    those of the 1x1 convolution before 3x3 and 5x5.
    """

    def __init__(
        self,
        channels: int,
        one: int,
        reduce3: int,
        three: int,
        reduce5: int,
        five: int,
        pool: int,
    ) -> None:
        super().__init__()
        self.width = one + three + five + pool
        self.branches = nn.ModuleList(
            [
                _Conv(channels, one, 1),
                nn.Sequential(_Conv(channels, reduce3, 1), _Conv(reduce3, three)),
                nn.Sequential(_Conv(channels, reduce5, 1), _Conv(reduce5, five), _Conv(five, five)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), _Conv(channels, pool, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """GoogLeNet of paper A table 1: 6,166,250 weights for 10 classes and colour.

    Their table 1 with batch norm after every convolution, a stem of one 3x3, no auxiliary outputs
    and no dropout. Paper A names no initialisation: torch's. `mean`, `std` and UserError as for
    resnet20.
    """
    pixels = normalised("googlenet", shape, mean, std, smallest=4)
    plan = (  # the columns of their table 1, stages 3, 4 and 5
        ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        (
            (192, 96, 208, 16, 48, 64),
            (160, 112, 224, 24, 64, 64),
            (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64),
            (256, 160, 320, 32, 128, 128),
        ),
        ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    )
    channels = 192
    layers: list[nn.Module] = [_Conv(shape[0], channels)]
    for i, stage in enumerate(plan):
        if i > 0:
            layers.append(nn.MaxPool2d(3, 2, 1))
        for row in stage:
            inception = Inception(channels, *row)
            layers.append(inception)
            channels = inception.width
    return classifier(pixels, layers, channels, classes)
