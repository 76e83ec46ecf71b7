"""The networks as they are written in plain torch, for the same weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from hpcddl.models.resnet import Block


class PlainBlock(nn.Module):
    """resnet20's block, whose shortcut is x itself wherever its shape stays."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv1, self.norm1 = block.conv1, block.norm1
        self.conv2, self.norm2 = block.conv2, block.norm2
        self.added = block.added
        self.changes = block.stride > 1 or block.added > 0

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        kept = x
        if self.changes:
            kept = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))
        return relu(out + kept)


def plain(model: nn.Module, pixels: Tensor) -> tuple[nn.Module, Tensor]:
    """`model` without what plain torch has not, in place, and images (B, C, H, W) for it.

    Normalisation is done beforehand, as by a data loader, and resnet20's blocks are those above;
    all other layers are torch's own already, in the order that one would write.
    """
    normalise = model.get_submodule("pixels")
    model.add_module("pixels", nn.Identity())
    with torch.no_grad():
        images = normalise(pixels)
    for name, module in list(model.named_modules()):
        if isinstance(module, Block):
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent).add_module(last, PlainBlock(module))
    return model, images
