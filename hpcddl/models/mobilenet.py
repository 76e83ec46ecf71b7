"""MobileNet (Howard et al. 2017) and MobileNetV2 (Sandler et al. 2018), for small images."""

from functools import partial

from torch import Tensor, nn

from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised


class InvertedResidual(nn.Module):
    """gate(bn(1x1(depthwise 3x3(1x1(x))))): wide by `expansion` in between, no ReLU at the end.

    At stride 1, x is added to it, as bn(1x1(x)) where the width changes; `gate` is the identity
    unless given.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        *,
        expansion: int,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = expansion * channels
        self.body = nn.Sequential(
            ConvNorm(channels, wide, 1),
            ConvNorm(wide, wide, 3, stride, groups=wide),
            ConvNorm(wide, width, 1, relu=False),
            *([] if gate is None else [gate]),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = channels == width
            self.shortcut = nn.Identity() if same else ConvNorm(channels, width, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out if self.shortcut is None else out + self.shortcut(x)


def _separable(channels: int, width: int, stride: int) -> nn.Sequential:
    """A convolution 3x3 of each channel for itself, then one 1x1 (MobileNet's fig. 3)."""
    return nn.Sequential(
        ConvNorm(channels, channels, 3, stride, groups=channels), ConvNorm(channels, width, 1)
    )


def mobilenet(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """MobileNet of paper A table 1: 3,217,226 weights for 10 classes and colour.

    Its table 1 with a stem of stride 1. Paper A names no initialisation: torch's. `mean`, `std` and
    UserError as for resnet20.
    """
    pixels = normalised("mobilenet", shape, mean, std, smallest=16)
    plan = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)]
    layers = [ConvNorm(shape[0], 32), *stages(_separable, 32, plan)]
    return classifier(pixels, layers, 1024, classes)


def mobilenet_v2(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """MobileNetV2 of paper A table 1: 2,296,922 weights for 10 classes and colour.

    Its table 2 with stride 1 in the stem and the first two stages, and a shortcut also where stride
    1 changes the width. Paper A names no initialisation: torch's. `mean`, `std` and UserError as
    for resnet20.
    """
    pixels = normalised("mobilenet_v2", shape, mean, std, smallest=8)
    plan = [(24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    layers = [
        ConvNorm(shape[0], 32),
        InvertedResidual(32, 16, 1, expansion=1),
        *stages(partial(InvertedResidual, expansion=6), 16, plan),
        ConvNorm(320, 1280, 1),
    ]
    return classifier(pixels, layers, 1280, classes)
