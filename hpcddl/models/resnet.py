"""Residual networks (He et al. 2016): for small images (sec. 4.2) and for ImageNet (sec. 4.1)."""

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from hpcddl.models.initialise import start_as_paper_b
from hpcddl.models.layers import ConvNorm, classifier, stages
from hpcddl.models.pixels import CIFAR10_MEAN, CIFAR10_STD, Mean, Std, normalised


class Block(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x with no weights (their option A).

    A block that halves the image also widens it: x' is then every second pixel of x, with channels
    of zeros added.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        kept = x[:, :, :: self.stride, :: self.stride]
        # Padded from the last axis back: none to columns and rows, `added` after the channels.
        return relu(out + pad(kept, (0, 0, 0, 0, 0, self.added)))


class Residual(nn.Module):
    """relu(x' + body(x)), where x' is x, or bn(conv 1x1(x)) if its shape changes (option B)."""

    def __init__(self, body: nn.Module, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(channels, width, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.shortcut(x) + self.body(x))


def basic(channels: int, width: int, stride: int) -> Residual:
    """Two convolutions 3x3 and a shortcut."""
    body = nn.Sequential(
        ConvNorm(channels, width, 3, stride), ConvNorm(width, width, 3, relu=False)
    )
    return Residual(body, channels, width, stride)


def bottleneck(
    channels: int, width: int, stride: int, *, narrower: int, groups: int = 1
) -> Residual:
    """A convolution 3x3 at width / `narrower`, between two 1x1, and a shortcut."""
    inner = width // narrower
    body = nn.Sequential(
        ConvNorm(channels, inner, 1),
        ConvNorm(inner, inner, 3, stride, groups=groups),
        ConvNorm(inner, width, 1, relu=False),
    )
    return Residual(body, channels, width, stride)


def resnet20(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """ResNet-20: 269,722 weights for 10 classes and colour.

    Convolutions 3*16*9 + 6*16*16*9 + (16*32 + 5*32*32)*9 + (32*64 + 5*64*64)*9 = 267,696, batch
    norms 2*(7*16 + 6*32 + 6*64) = 1,376, output 64*10 + 10 = 650. Started as paper B app. A.2.

    Args:
        mean: of each channel's pixels, 0 .. 255; it and `std` are CIFAR-10's unless given.

    Raises:
        UserError: samples that are not square images of the channels that `mean` and `std` have.
    """
    pixels = normalised("resnet20", shape, mean, std, smallest=4)
    blocks = stages(Block, 16, [(16, 3, 1), (32, 3, 2), (64, 3, 2)])
    return start_as_paper_b(classifier(pixels, [ConvNorm(shape[0], 16), *blocks], 64, classes))


def resnet18(
    shape: tuple[int, ...], classes: int, *, mean: Mean = CIFAR10_MEAN, std: Std = CIFAR10_STD
) -> nn.Module:
    """ResNet-18 of paper A table 1: 11,173,962 weights for 10 classes and colour.

    He et al.'s table 1 with a stem for small images: 3x3, stride 1, no pooling. Paper A names no
    initialisation: torch's. `mean`, `std` and UserError as for resnet20.
    """
    pixels = normalised("resnet18", shape, mean, std, smallest=8)
    blocks = stages(basic, 64, [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)])
    return classifier(pixels, [ConvNorm(shape[0], 64), *blocks], 512, classes)


def resnet50(
    shape: tuple[int, ...],
    classes: int,
    *,
    mean: Mean = (123.675, 116.28, 103.53),
    std: Std = (58.395, 57.12, 57.375),
) -> nn.Module:
    """ResNet-50 of paper B app. A.2 for ImageNet: 25,557,032 weights for 1000 classes and colour.

    He et al.'s table 1; blocks stride in the 3x3 convolution (Goyal et al. 2017, sec. 5.1). Started
    as paper B app. A.2. `mean` and `std` are ImageNet's; UserError as for resnet20.
    """
    pixels = normalised("resnet50", shape, mean, std, smallest=32)
    stem = [ConvNorm(shape[0], 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    plan = [(256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)]
    blocks = stages(partial(bottleneck, narrower=4), 64, plan)
    return start_as_paper_b(classifier(pixels, [*stem, *blocks], 2048, classes))
