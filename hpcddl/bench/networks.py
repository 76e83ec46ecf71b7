"""`hpcddl bench networks`: a training step of each CIFAR network, beside plain torch."""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpcddl.bench.plain import plain
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import From
from hpcddl.data.known import KNOWN
from hpcddl.data.network_input import network_input
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.local_sgd import LocalSGD
from hpcddl.training.accumulate import backward
from hpcddl.training.forward import forward

TARGET = 1.05  # of a step's CPU time, to plain torch's
CIFAR10 = KNOWN["cifar10"]
NETWORKS = [name for name, reference in REFERENCES.items() if reference.shape == CIFAR10.shape]
OPTIMIZER: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4}
RATE = 1e-3
NEVER = 2**30  # local steps up to an average

Step = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench networks`."""
    parser.description = (
        "Trains each network on one core on one batch of random images: by the loop's own path, by "
        "the same network in plain torch (torch.optim.SGD, images normalised beforehand), and with "
        "channels last. Steps take turns; numbers are medians of CPU seconds and of their ratios."
    )
    parser.epilog = "example: hpcddl bench networks --networks resnet18,vgg19 --compile"
    add = parser.add_argument
    add("--networks", default=",".join(NETWORKS), help="which, separated by commas")
    add("--batch", type=int, default=16, help="images per step")
    add("--rounds", type=int, default=7, help="steps of each that are counted")
    add("--compile", action="store_true", help="also compiled, which takes minutes for some")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; without a launcher."""
    names = arguments.networks.split(",")
    for name in names:
        if name not in NETWORKS:
            raise UserError(f"--networks: {name}, allowed: {', '.join(NETWORKS)}")
    for count in ("batch", "rounds"):
        value = getattr(arguments, count)
        if value < 2:  # batch norm's, and a median's
            raise UserError(f"--{count}: {value}, allowed: at least 2")
    world = World.create()
    if world.size > 1:
        raise UserError(f"bench networks: measures one process, got {world.size} ranks")
    torch.set_num_threads(1)
    result = {
        "machine": platform.node(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "load": os.getloadavg()[0],
        "networks": {
            name: measure(name, world, arguments.batch, arguments.rounds, arguments.compile)
            for name in names
        },
    }
    print(json.dumps(result) if arguments.json else as_text(result))
    return 0


def measure(name: str, world: World, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """CPU seconds per step of each variant, and ratios within a round: to plain, or to ours."""
    steps = variants(name, world, batch, compiled)
    for step in steps.values():
        step()  # compiles, and touches buffers for the first time
        step()
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant, step in steps.items():
            began = time.process_time()
            step()
            seconds[variant].append(time.process_time() - began)
    times = {variant: np.array(values) for variant, values in seconds.items()}
    return {
        "cpu_seconds": {variant: float(np.median(t)) for variant, t in times.items()},
        "to_plain": float(np.median(times["ours"] / times["plain"])),
        "to_ours": {
            variant: float(np.median(t / times["ours"]))
            for variant, t in times.items()
            if variant not in ("ours", "plain")
        },
    }


def variants(name: str, world: World, batch: int, compiled: bool) -> dict[str, Step]:
    """One training step of the same weights in each way."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch, *CIFAR10.shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CIFAR10.classes, (batch,), generator=generator)
    torch.manual_seed(0)
    model = MODELS[name](CIFAR10.shape, CIFAR10.classes).to(world.device)
    inputs, labels = pixels.to(world.device), labels.to(world.device)
    found = {
        "plain": plain_step(model, inputs, labels),
        "ours": our_step(model, world, inputs, labels),
        "channels last": our_step(model, world, inputs, labels, channels_last=True),
    }
    if compiled:
        found["compiled"] = our_step(model, world, inputs, labels, compiled=True)
    return found


def our_step(
    model: nn.Module,
    world: World,
    pixels: Tensor,
    labels: Tensor,
    *,
    channels_last: bool = False,
    compiled: bool = False,
) -> Step:
    """The loop's, of a learner that does not communicate."""
    model = copy.deepcopy(model)
    options = From(OPTIMIZERS).choose({"name": "sgd", **OPTIMIZER})
    optimizer: torch.optim.Optimizer = options.build(OPTIMIZERS, model)
    strategy = LocalSGD(model, GradientStep(optimizer), world, 0, steps=NEVER)
    network = forward(
        model,
        tuple(pixels.shape[1:]),
        channels_last=channels_last,
        compiled=compiled,
        autocast=None,
    )

    def step() -> None:
        for group in strategy.optimizer.param_groups:
            group["lr"] = RATE
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        backward(network, network_input(pixels, torch.float32), labels, 1)
        strategy.update()

    return step


def plain_step(model: nn.Module, pixels: Tensor, labels: Tensor) -> Step:
    """Plain torch's, on images that were normalised beforehand."""
    network, images = plain(copy.deepcopy(model), pixels.float())
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, **OPTIMIZER)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def as_text(result: dict[str, Any]) -> str:
    """The table."""
    networks = result["networks"]
    width = max(map(len, networks))
    others = list(next(iter(networks.values()))["to_ours"])
    heads = "".join(f"  {other + ' x ours':>21}" for other in others)
    lines = [
        f"one core of {result['machine']}, torch {result['torch']}, batch {result['batch']}, "
        f"medians of {result['rounds']} steps; target: at most {TARGET} x plain",
        f"{'':{width}} {'plain ms':>9} {'ours ms':>9} {'x plain':>8}{heads}",
    ]
    for name, m in networks.items():
        ms = {variant: 1e3 * seconds for variant, seconds in m["cpu_seconds"].items()}
        ratios = "".join(f"  {m['to_ours'][other]:21.3f}" for other in others)
        lines.append(
            f"{name:{width}} {ms['plain']:9.1f} {ms['ours']:9.1f} {m['to_plain']:8.3f}{ratios}"
        )
    return "\n".join(lines)
