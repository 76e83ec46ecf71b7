"""Densely connected networks (Huang et al. 2017), for small images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcddl.models.initialise import start_as_paper_b
from hpcddl.models.layers import classifier
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Pixels, Std, normalised


class NormConv(nn.Sequential):
    """conv(relu(bn(x)))."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
        )


class Dense(nn.Sequential):
    """[x, h(x)]: `growth` channels are added to those there are (their eq. 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], 1)


def _dense(channels: int, growth: int, bottleneck: bool) -> Dense:
    if not bottleneck:
        return Dense(NormConv(channels, growth, 3))
    return Dense(NormConv(channels, 4 * growth, 1), NormConv(4 * growth, growth, 3))


def _densenet(
    pixels: Pixels,
    classes: int,
    blocks: Sequence[int],
    growth: int,
    stem: int,
    bottleneck: bool,
    reduction: float,
) -> nn.Sequential:
    """Dense blocks of so many layers; between two of them the image is halved.

    There `reduction` times the channels are kept.
    """
    channels = stem
    layers: list[nn.Module] = [nn.Conv2d(len(pixels.mean), stem, 3, padding=1, bias=False)]
    for i, depth in enumerate(blocks):
        if i > 0:
            kept = int(reduction * channels)
            layers += [NormConv(channels, kept, 1), nn.AvgPool2d(2)]
            channels = kept
        for _ in range(depth):
            layers.append(_dense(channels, growth, bottleneck))
            channels += growth
    layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return classifier(pixels, layers, channels, classes)


def densenet121(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """DenseNet-121 of paper A table 1: 6,956,298 weights for 10 classes and colour.

    DenseNet-BC, growth 32, blocks of 6, 12, 24 and 16 layers; the stem is 3x3. Paper A names no
    initialisation: torch's. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("densenet121", shape, mean, std, smallest=8)
    return _densenet(pixels, classes, (6, 12, 24, 16), 32, stem=64, bottleneck=True, reduction=0.5)


def densenet40_12(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """DenseNet-40-12 of paper B app. A.2: 1,019,722 weights for 10 classes and colour.

    40 = 3 * 12 + 4 layers, growth 12, no bottleneck, all channels kept; no dropout, for the paper
    names none. Started as paper B app. A.2. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("densenet40_12", shape, mean, std, smallest=4)
    return start_as_paper_b(
        _densenet(pixels, classes, (12, 12, 12), 12, stem=16, bottleneck=False, reduction=1.0)
    )
