"""What the loop calls instead of the network: the same function by other kernels."""

import os
import shutil
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpcddl.common.errors import UserError
from hpcddl.training.autocast import Autocast


class ChannelsLast(nn.Module):
    """`model` on images (B, C, H, W) whose channels lie together in memory.

    Convolutions keep the order of their input. The weights stay as they are: as one vector, in
    optimizers, messages and checkpoints they are those of any other run.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, C)."""
        scores: Tensor = self.model(images.contiguous(memory_format=torch.channels_last))
        return scores


class Compiled(nn.Module):
    """`model`, in training by torch.compile, in evaluation as it is.

    Evaluation has batches of other sizes and batch norm in other states, each of which would take
    a compilation of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # A function of ours: a call of one of torch's modules is compiled in pieces.
        self._compiled = torch.compile(lambda features: model(features))

    def forward(self, features: Tensor) -> Tensor:
        """Scores (B, ..., C)."""
        scores: Tensor = self._compiled(features) if self.training else self.model(features)
        return scores


def forward(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    channels_last: bool,
    compiled: bool,
    autocast: str | None,
) -> nn.Module:
    """`model`, with its own parameters, as the options want it computed.

    `model` itself stays as it was, so that its weights have their own names in checkpoints.
    `autocast` names a 16-bit type.

    Raises:
        UserError: channels last of samples of `shape` that have no channels; no compiler.
    """
    if channels_last and (len(shape) != 3 or shape[0] == 1):
        raise UserError(
            f"channels_last=true: takes images of several channels, the data has samples of {shape}"
        )
    network = model
    if compiled:
        check_compiler(os.environ)
        network = Compiled(network)
    if channels_last:
        network = ChannelsLast(network)
    return Autocast(network, getattr(torch, autocast)) if autocast else network


def check_compiler(environment: Mapping[str, str]) -> None:
    """Raises UserError where torch.compile would not find the C++ compiler that it needs."""
    name = environment.get("CXX", "g++")
    if not shutil.which(name):
        raise UserError(
            f"compile=true: needs a C++ compiler, and {name} is not on PATH; install g++ or set CXX"
        )
