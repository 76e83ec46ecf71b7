"""`hpcddl bench network`: each strategy's step on emulated slow networks."""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hpcddl.bench.checks import check
from hpcddl.bench.methods import ALONE, Build, ours, theirs
from hpcddl.bench.timing import slowest
from hpcddl.cluster.links import EmulatedLinks, Link, put_links, split
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.models.bilstm import bilstm
from hpcddl.training.evaluate import classification_loss

_PERIOD = 16  # steps from one average over all to the next, of those that have local steps
METHODS: dict[str, tuple[Build, int]] = {  # and the steps of a whole period
    ALONE: (theirs(lambda model, optimizer: (model, optimizer)), 1),
    "SSGD": (ours("ssgd", fusion_mib=64), 1),
    "DPSGD": (ours("dpsgd"), 1),
    "DPSGD, delayed": (ours("dpsgd", delayed=True), 1),
    "DPSGD, H = 4": (ours("dpsgd", steps=4), 4),
    f"local SGD, H = {_PERIOD}": (ours("local_sgd", steps=_PERIOD), _PERIOD),
    f"hierarchical, H = 2, {_PERIOD}": (
        ours("local_sgd", steps=2, block_steps=_PERIOD // 2),
        _PERIOD,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl bench network`."""
    parser.description = (
        "Train a bi-LSTM with each strategy on emulated networks between two nodes: links on which "
        "a message of all weights takes 0.8 and 1.6 times as long as forward and backward, by "
        "their bandwidth and by their latency, and a delay of every average over all learners "
        "(paper B fig. 19). Seconds per step of the slowest rank."
    )
    parser.epilog = "example: mpirun -np 2 --bind-to none hpcddl bench network"
    add = parser.add_argument
    add("--classes", type=int, default=1000, help="classes of the network")
    add("--cells", type=int, default=256, help="LSTM cells per layer and direction, 2 layers")
    add("--batch", type=int, default=8, help="windows of 21 frames per learner")
    add("--periods", type=int, default=3, help="of 16 steps where nothing is delayed for seconds")
    add("--delays", type=float, nargs="+", default=[1.0, 50.0], help="seconds per global round")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints on rank 0."""
    world = World.create()
    a = arguments
    with world.failing_together():
        world.together(lambda: _check(world, a))
        model = bilstm((21, 260), a.classes, layers=2, cells=a.cells)
        result = measure(world, model, a.classes, a.batch, a.periods, a.delays)
    if world.rank == 0:
        print(json.dumps(result) if a.json else as_text(result))
    return 0


def _check(world: World, arguments: argparse.Namespace) -> None:
    check("bench network", world, arguments, "classes", "cells", "batch", "periods")
    if min(arguments.delays) < 0:
        raise UserError(f"--delays: {min(arguments.delays):g}, allowed: at least 0")


def measure(
    world: World, model: nn.Module, classes: int, batch: int, periods: int, delays: list[float]
) -> dict[str, Any]:
    """Seconds per step of every method on every network, and of forward and backward alone."""
    data = torch.Generator().manual_seed(world.rank)
    features = torch.randn(batch, 21, 260, generator=data)
    labels = torch.randint(classes, (batch, 21), generator=data)

    def compute() -> None:
        for _ in range(_PERIOD):
            model.zero_grad()
            classification_loss(model(features), labels).backward()

    # The best of several: the links must not be slower than what is to hide them.
    alone = min(slowest(world.comm, compute) for _ in range(2 + periods)) / _PERIOD
    nbytes = sum(p.nbytes for p in model.parameters())
    networks = {"as it is": _emulated(world, Link())}
    for share in (0.8, 1.6):
        narrow = Link(bytes_per_second=nbytes / (share * alone))
        networks[f"narrow, {share:g}"] = _emulated(world, narrow)
        networks[f"far, {share:g}"] = _emulated(world, Link(latency_seconds=share * alone))
    for delay in delays:
        networks[f"{delay:g} s a round"] = _emulated(world, Link(), delay)

    def seconds_per_step(build: Build, emulated: World, steps: int) -> float:
        method = build(copy.deepcopy(model), emulated)

        def train() -> None:
            for _ in range(steps):
                method.iterate(features, labels)

        with method.ready(world, features, labels):
            return slowest(world.comm, train) / steps

    seconds: dict[str, dict[str, float]] = {name: {} for name in METHODS}
    count = len(METHODS) * len(networks)
    with Progress(count, "bench network", "runs", shown=world.rank == 0) as progress:
        for network, emulated in networks.items():
            for name, (build, period) in METHODS.items():
                # A delay of seconds dwarfs the step's own variation: one period shows it.
                steps = period if network.endswith("round") else periods * _PERIOD
                seconds[name][network] = seconds_per_step(build, emulated, steps)
                progress.add()
    return {
        "ranks": world.size,
        "mib": nbytes / 2**20,
        "forward_backward_seconds": alone,
        "seconds_per_step": seconds,
    }


def _emulated(world: World, between: Link, round_delay_seconds: float = 0.0) -> World:
    """Two nodes of half the learners each; inside a node nothing is added."""
    half = world.size // 2
    nodes = [rank // half for rank in range(world.size)]
    comm = world.comm.Dup()
    put_links(comm, EmulatedLinks(comm, nodes, Link(), between, round_delay_seconds))
    return replace(world, comm=comm, node=split(comm, nodes[world.rank]))


def as_text(r: dict[str, Any]) -> str:
    """A row for each method, a column for each network; in milliseconds."""
    table: dict[str, dict[str, float]] = r["seconds_per_step"]
    networks = list(next(iter(table.values())))
    width = max(map(len, table))
    widths = [max(9, len(network)) for network in networks]
    lines = [
        f"{r['ranks']} learners on 2 emulated nodes, {r['mib']:.1f} MiB of weights, forward and "
        f"backward {1e3 * r['forward_backward_seconds']:.1f} ms; ms per step",
        f"{'':{width}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(networks, widths, strict=True)),
    ]
    for name, row in table.items():
        cells = (f"{1e3 * row[n]:{w}.1f}" for n, w in zip(networks, widths, strict=True))
        lines.append(f"{name:{width}}  " + "  ".join(cells))
    return "\n".join(lines)
