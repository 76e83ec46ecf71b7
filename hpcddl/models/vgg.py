"""VGG (Simonyan and Zisserman 2015), for small images."""

from torch import nn

from hpcddl.models.layers import ConvNorm, classifier
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised


def vgg19(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """VGG-19 of paper A table 1: 20,040,522 weights for 10 classes and colour.

    Their configuration E with batch norm and one linear layer, 512 -> C. Paper A names no
    initialisation: torch's. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("vgg19", shape, mean, std, smallest=32)
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, convolutions in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(convolutions):
            layers.append(ConvNorm(channels, width, bias=True))
            channels = width
        layers.append(nn.MaxPool2d(2))
    return classifier(pixels, layers, 512, classes)
