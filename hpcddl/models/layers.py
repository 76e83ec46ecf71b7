"""What the image networks have in common."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from torch import nn

from hpcddl.models.pixels import Pixels


class ConvNorm(nn.Sequential):
    """relu(bn(conv(x))), or bn(conv(x)); the image keeps its size, or is divided by `stride`."""

    def __init__(
        self,
        inputs: int,
        width: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        convolution = nn.Conv2d(
            inputs, width, kernel, stride, kernel // 2, groups=groups, bias=bias
        )
        super().__init__(convolution, nn.BatchNorm2d(width), *([nn.ReLU()] if relu else []))


def stages(
    block: Callable[[int, int, int], nn.Module], inputs: int, plan: Iterable[tuple[int, int, int]]
) -> list[nn.Module]:
    """All blocks(channels in, channels out, stride) of the stages (width, blocks, stride).

    A stage's first block has its stride and takes the channels of the stage before.
    """
    layers = []
    for width, blocks, stride in plan:
        for i in range(blocks):
            layers.append(block(inputs if i == 0 else width, width, stride if i == 0 else 1))
        inputs = width
    return layers


def classifier(
    pixels: Pixels, layers: Iterable[nn.Module], features: int, classes: int
) -> nn.Sequential:
    """Pixels (B, channels, size, size) to scores (B, C), linear in the last `features`' means."""
    return nn.Sequential(
        OrderedDict(
            pixels=pixels,
            layers=nn.Sequential(*layers),
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            output=nn.Linear(features, classes),
        )
    )
