"""`hpcddl bench networks`: a training step of each CIFAR network, beside plain torch.

Trains each network on one core on one batch of random images: by the loop's own path, by the same
network in plain torch (torch.optim.SGD, images normalised beforehand), and with channels last.
Steps take turns; numbers are medians of CPU seconds and of their ratios.

example: hpcddl bench networks --networks resnet18,vgg19 --compile
"""

import argparse
import copy
import os
import platform
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, relu

from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import IMAGES, random_images
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.options import From
from hpcddl.data.network_input import network_input
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from hpcddl.models.resnet import Block
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.local_sgd import LocalSGD
from hpcddl.training.accumulate import backward
from hpcddl.training.forward import forward

TARGET = 1.05  # of a step's CPU time, to plain torch's
NETWORKS = [name for name, reference in REFERENCES.items() if reference.shape == IMAGES.shape]
OPTIMIZER: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4}
RATE = 1e-3
NEVER = 2**30  # local steps up to an average


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench networks`."""
    add, two = bench.describe(parser, __doc__), at_least(2)  # batch norm's, and a median's
    add("--networks", type=_names, default=",".join(NETWORKS), help="which, separated by commas")
    add("--batch", type=two, default=16, help="images per step")
    add("--rounds", type=two, default=7, help="steps of each that are counted")
    add("--compile", action="store_true", help="also compiled, which takes minutes for some")


def _names(text: str) -> list[str]:
    for name in text.split(","):
        if name not in NETWORKS:
            raise argparse.ArgumentTypeError(f"{name}: must be one of {', '.join(NETWORKS)}")
    return text.split(",")


def measure(
    world: World, *, networks: list[str], batch: int, rounds: int, compile: bool
) -> bench.Result:
    """Measures each network in turn."""
    torch.set_num_threads(1)
    return {
        "machine": platform.node(),
        "torch": torch.__version__,
        "batch": batch,
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "networks": {name: _compared(name, world, batch, rounds, compile) for name in networks},
    }


def _compared(name: str, world: World, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """Takes CPU seconds per step of each variant, and ratios within a round."""
    steps = variants(name, world, batch, compiled)
    times = bench.in_turns(steps, rounds, _cpu_seconds, warm=2)  # one compiles
    return {
        "cpu_seconds": bench.medians(times),
        "to_plain": float(np.median(times["ours"] / times["plain"])),
        "to_ours": {
            variant: float(np.median(t / times["ours"]))
            for variant, t in times.items()
            if variant not in ("ours", "plain")
        },
    }


def _cpu_seconds(work: bench.Work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def variants(name: str, world: World, batch: int, compiled: bool) -> dict[str, bench.Work]:
    """Makes one training step of the same weights in each way."""
    pixels, labels = (drawn.to(world.device) for drawn in random_images(batch, seed=0))
    torch.manual_seed(0)
    model = MODELS[name](IMAGES.shape, IMAGES.classes).to(world.device)
    found = {
        "plain": plain_step(model, pixels, labels),
        "ours": our_step(model, world, pixels, labels),
        "channels last": our_step(model, world, pixels, labels, channels_last=True),
    }
    if compiled:
        found["compiled"] = our_step(model, world, pixels, labels, compiled=True)
    return found


def our_step(
    model: nn.Module,
    world: World,
    pixels: Tensor,
    labels: Tensor,
    *,
    channels_last: bool = False,
    compiled: bool = False,
) -> bench.Work:
    """Makes the loop's step, of a learner that does not communicate."""
    model = copy.deepcopy(model)
    options = From(OPTIMIZERS).choose({"name": "sgd", **OPTIMIZER})
    optimizer: torch.optim.Optimizer = options.build(OPTIMIZERS, model)
    strategy = LocalSGD(model, GradientStep(optimizer), world, 0, steps=NEVER)
    shape = tuple(pixels.shape[1:])
    network = forward(model, shape, channels_last=channels_last, compiled=compiled, autocast=None)

    def step() -> None:
        for group in strategy.optimizer.param_groups:
            group["lr"] = RATE
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        backward(network, network_input(pixels, torch.float32), labels, 1)
        strategy.update()

    return step


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
    """Strips `model` of what plain torch has not, in place; makes images (B, C, H, W) for it.

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


def plain_step(model: nn.Module, pixels: Tensor, labels: Tensor) -> bench.Work:
    """Makes plain torch's step, on images that were normalised beforehand."""
    network, images = plain(copy.deepcopy(model), pixels.float())
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, **OPTIMIZER)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def as_text(result: bench.Result) -> str:
    """Lays out a row per network."""
    networks = result["networks"]
    rows = {  # of the variants beside plain and ours the ratio alone
        name: m["cpu_seconds"] | m["to_ours"] | {"to_plain": m["to_plain"]}
        for name, m in networks.items()
    }
    others = next(iter(networks.values()))["to_ours"]
    head = (
        f"one core of {result['machine']}, torch {result['torch']}, batch {result['batch']}, "
        f"medians of {result['rounds']} steps; target: at most {TARGET} x plain"
    )
    columns = [
        bench.Column("plain ms", "plain", ".1f", 1e-3),
        bench.Column("ours ms", "ours", ".1f", 1e-3),
        bench.Column("x plain", "to_plain", ".3f"),
        *(bench.Column(f"{other} x ours", other, ".3f") for other in others),
    ]
    return "\n".join([head, *bench.table(rows, columns)])


def _one(ranks: int) -> None:
    if ranks > 1:
        raise UserError(f"ranks: {ranks}: must be 1: what is measured is one process")


run = bench.command(measure, as_text, _one)
