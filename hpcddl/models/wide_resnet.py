"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

from torch import nn

from hpcddl.models.initialise import start_as_paper_b
from hpcddl.models.layers import classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised
from hpcddl.models.preactivation import PreActivation


def wide_resnet28_10(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """WRN-28-10 of paper B app. A.2: 36,479,194 weights for 10 classes and colour.

    28 = 6 * 4 + 4 layers, 10 times ResNet's widths of 16, 32, 64; no dropout, for the paper names
    none. Started as paper B app. A.2. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("wide_resnet28_10", shape, mean, std, smallest=4)
    layers = [
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False),
        *stages(PreActivation, 16, [(160, 4, 1), (320, 4, 2), (640, 4, 2)]),
        nn.BatchNorm2d(640),
        nn.ReLU(),
    ]
    return start_as_paper_b(classifier(pixels, layers, 640, classes))
