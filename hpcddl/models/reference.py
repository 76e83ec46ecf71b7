"""What each network is counted with: the papers' data, and the size that paper A gives it."""

from dataclasses import dataclass

import torch

from hpcddl.data.known import KNOWN


@dataclass(frozen=True)
class Reference:
    """A sample's shape and dtype, the number of classes, and the MiB of paper A table 1."""

    shape: tuple[int, ...]
    classes: int
    paper_mib: float | None = None
    dtype: torch.dtype = torch.float32


def _on(name: str, paper_mib: float | None = None) -> Reference:
    return Reference(KNOWN[name].shape, KNOWN[name].classes, paper_mib)


REFERENCES: dict[str, Reference] = {
    "bilstm": _on("swb300", 164.62),
    "densenet121": _on("cifar10", 26.54),
    "densenet40_12": _on("cifar10"),
    "efficientnet_b0": _on("cifar10", 11.11),
    "googlenet": _on("cifar10", 23.53),
    "logistic_regression": _on("w8a"),
    "lstm_lm": Reference((30,), KNOWN["wikitext2"].classes, dtype=torch.int64),
    "mlp": _on("mnist"),
    "mobilenet": _on("cifar10", 12.27),
    "mobilenet_v2": _on("cifar10", 8.76),
    "resnet18": _on("cifar10", 42.63),
    "resnet20": _on("cifar10"),
    "resnet50": _on("imagenet"),
    "resnext29": _on("cifar10", 34.82),
    "senet18": _on("cifar10", 42.95),
    "shufflenet_v2": _on("cifar10", 4.82),
    "vgg19": _on("cifar10", 76.45),
    "wide_resnet28_10": _on("cifar10"),
}
