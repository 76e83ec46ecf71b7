"""Squeeze-and-excitation networks (Hu et al. 2018), for small images."""

from torch import Tensor, nn

from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised
from hpcddl.models.preactivation import PreActivation

REDUCTION = 16


class SqueezeExcitation(nn.Sequential):
    """x_c s_c with s = sigmoid(W2 relu(W1 z + b1) + b2), z = x's channel means (their eq. 2-4)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // REDUCTION, 1),
            nn.ReLU(),
            nn.Conv2d(channels // REDUCTION, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = super().forward(x)
        return x * scale


def _block(channels: int, width: int, stride: int) -> PreActivation:
    return PreActivation(channels, width, stride, SqueezeExcitation(width))


def senet18(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """SENet-18 of paper A table 1: 11,260,354 weights for 10 classes and colour.

    ResNet-18 of pre-activation blocks, each squeezed and excited before its shortcut is added, with
    no batch norm after the last. Paper A names no initialisation: torch's. `mean`, `std` and
    UserError as for resnet20.
    """
    pixels = normalised("senet18", shape, mean, std, smallest=8)
    blocks = stages(_block, 64, [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)])
    return classifier(pixels, [ConvNorm(shape[0], 64), *blocks], 512, classes)
