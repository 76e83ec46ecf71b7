"""ResNeXt of Xie et al. (2017), for small images."""

from functools import partial

from torch import nn

from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised
from hpcddl.models.resnet import bottleneck


def resnext29(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """ResNeXt-29, 2 x 64d, of paper A table 1: 9,128,778 weights for 10 classes and colour.

    Bottlenecks whose 3x3 convolution has 2 groups of 64 channels in the first stage; the stem is
    1x1 to 64. Paper A names no initialisation: torch's. `mean`, `std` and UserError as for
    resnet20.
    """
    pixels = normalised("resnext29", shape, mean, std, smallest=4)
    block = partial(bottleneck, narrower=2, groups=2)
    blocks = stages(block, 64, [(256, 3, 1), (512, 3, 2), (1024, 3, 2)])
    return classifier(pixels, [ConvNorm(shape[0], 64, 1), *blocks], 1024, classes)
