"""What each network is counted with: the papers' data, and the size that paper A gives it."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Reference:
    """A sample's shape and dtype, the number of classes, and the MiB of paper A table 1."""

    shape: tuple[int, ...]
    classes: int
    paper_mib: float | None = None
    dtype: torch.dtype = torch.float32


_CIFAR10 = (3, 32, 32)

REFERENCES: dict[str, Reference] = {
    "bilstm": Reference((21, 260), 32_000, 164.62),
    "densenet121": Reference(_CIFAR10, 10, 26.54),
    "densenet40_12": Reference(_CIFAR10, 10),
    "efficientnet_b0": Reference(_CIFAR10, 10, 11.11),
    "googlenet": Reference(_CIFAR10, 10, 23.53),
    "logistic_regression": Reference((300,), 2),
    "lstm_lm": Reference((30,), 33_278, dtype=torch.int64),
    "mlp": Reference((1, 28, 28), 10),
    "mobilenet": Reference(_CIFAR10, 10, 12.27),
    "mobilenet_v2": Reference(_CIFAR10, 10, 8.76),
    "resnet18": Reference(_CIFAR10, 10, 42.63),
    "resnet20": Reference(_CIFAR10, 10),
    "resnet50": Reference((3, 224, 224), 1000),
    "resnext29": Reference(_CIFAR10, 10, 34.82),
    "senet18": Reference(_CIFAR10, 10, 42.95),
    "shufflenet_v2": Reference(_CIFAR10, 10, 4.82),
    "vgg19": Reference(_CIFAR10, 10, 76.45),
    "wide_resnet28_10": Reference(_CIFAR10, 10),
}
