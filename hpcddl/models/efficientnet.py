"""EfficientNet-B0 (Tan and Le 2019), for small images."""

from torch import nn

from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.mobilenet import InvertedResidual
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised
from hpcddl.models.senet import SqueezeExcitation


def _block(channels: int, width: int, stride: int) -> InvertedResidual:
    return InvertedResidual(channels, width, stride, expansion=6, gate=SqueezeExcitation(width))


def efficientnet_b0(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """EfficientNet-B0 of paper A table 1: 2,912,089 weights for 10 classes and colour.

    A variant of its table 1: ReLU, a stem of stride 1, depthwise convolutions 3x3 throughout,
    squeeze-and-excitation after the projection, no last convolution. Paper A names no
    initialisation: torch's. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("efficientnet_b0", shape, mean, std, smallest=32)
    plan = [(24, 2, 1), (40, 2, 2), (80, 3, 2), (112, 3, 1), (192, 4, 2), (320, 1, 2)]
    layers: list[nn.Module] = [
        ConvNorm(shape[0], 32),
        InvertedResidual(32, 16, 2, expansion=1, gate=SqueezeExcitation(16)),
        *stages(_block, 16, plan),
    ]
    return classifier(pixels, layers, 320, classes)
