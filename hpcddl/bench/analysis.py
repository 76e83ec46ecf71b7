"""`hpcddl bench analysis`: what curvature, landscapes and live diagnostics cost."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.points import values_at
from hpcddl.analysis.sample_loss import draw_sample, loss_and_error
from hpcddl.bench.timing import interleaved, slowest
from hpcddl.cluster.world import World
from hpcddl.common.bounds import check_least
from hpcddl.common.flat import FlatWeights
from hpcddl.common.table import aligned
from hpcddl.data import shard_set
from hpcddl.data.known import KNOWN
from hpcddl.data.network_input import network_input
from hpcddl.data.shards import Shards
from hpcddl.data.stand_in import write_stand_in
from hpcddl.models.bilstm import bilstm
from hpcddl.models.resnet import resnet20
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies.dpsgd import DPSGD
from hpcddl.training.accumulate import backward
from hpcddl.training.diagnostics import Diagnostics
from hpcddl.training.hessian import Hessian
from hpcddl.training.overall import OverallLoss

CLASSES = 1000  # of the bi-LSTM
DATA = {"resnet20": KNOWN["cifar10"], "bilstm": replace(KNOWN["swb300"], classes=CLASSES)}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: resnet20(DATA["resnet20"].shape, DATA["resnet20"].classes),
    "bilstm": lambda: bilstm(DATA["bilstm"].shape, CLASSES, layers=2, cells=256),
}
TARGETS = {"resnet20": 3, "bilstm": 10}  # gradients per product, at most
LANDSCAPE_TARGET, DIAGNOSTICS_TARGET = 0.9, 5.0  # of n ranks; per cent, at most
SCALE = 0.1  # of the landscape
RATE = 1e-3
_LOWEST = {"batch": 2, "samples": 1, "points": 1, "rounds": 1}  # 2: batch norm's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench analysis`."""
    parser.description = (
        f"On random samples, of ResNet-20 and of a bi-LSTM of 2 x 256 cells and {CLASSES} classes: "
        "a Hessian-vector product in gradients, with the gradient's graph kept and without; how "
        "many times as fast all ranks make ResNet-20's landscape as one does; what the diagnostics "
        "of a DPSGD update take beside their gradients."
    )
    parser.epilog = "example: mpirun -np 2 --bind-to none hpcddl bench analysis"
    add = parser.add_argument
    add("--batch", type=int, default=16, help="samples at once")
    add("--samples", type=int, default=1024, help="of the landscape, and of the probe set")
    add("--points", type=int, default=4, help="of the landscape, per rank")
    add("--rounds", type=int, default=5, help="turns of each")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints on rank 0."""
    world = World.create()
    a = arguments
    with world.failing_together(), tempfile.TemporaryDirectory() as own:
        world.together(lambda: check_least(a, _LOWEST))
        folder = Path(own)  # each rank's
        data = {name: _stand_in(folder / name, name, a.samples) for name in DATA}
        result = {
            "machine": platform.node(),
            "cores": len(os.sched_getaffinity(0)),
            "ranks": world.size,
            "batch": a.batch,
            "samples": a.samples,
            "products": {
                name: products(_model(name, world), data[name], a.batch, a.rounds, world)
                for name in MODELS
            },
            "landscape": landscape(data["resnet20"], a.points, a.batch, a.rounds, world, folder),
            "diagnostics": {
                name: diagnostics(_model(name, world), data[name], a.batch, a.rounds, world)
                for name in MODELS
            },
        }
    if world.rank == 0:
        print(json.dumps(result) if a.json else as_text(result))
    return 0


def products(
    model: nn.Module, data: Shards, batch: int, rounds: int, world: World
) -> dict[str, float]:
    """Best seconds of a gradient, and products in gradients; every rank is busy with the same.

    Of two batches, whose graphs are both kept or both made anew.
    """
    features, labels = _first(data, 2 * batch, world)
    batches = list(zip(features.split(batch), labels.split(batch), strict=True))
    model.eval()
    kept = Hessian(model, batches, 2 * batch, inf)
    anew = Hessian(model, batches, 2 * batch)
    vector = random_direction(model, 0, "none")
    seconds = interleaved(
        {
            # .cpu() waits for the device.
            "gradient": lambda _: anew.gradient().cpu(),
            "kept": lambda _: kept(vector).cpu(),
            "anew": lambda _: anew(vector).cpu(),
        },
        rounds,
    )
    gradient = seconds["gradient"]
    return {
        "gradient_seconds": gradient,
        "kept": seconds["kept"] / gradient,
        "anew": seconds["anew"] / gradient,
    }


def landscape(
    data: Shards, points: int, batch: int, rounds: int, world: World, folder: Path
) -> dict[str, float]:
    """Seconds per point of rank 0 alone, and how many times as fast all ranks are together."""
    model = _model("resnet20", world).eval()
    sample = draw_sample(data, len(data), 0, world.device)
    weights = FlatWeights(model)
    centre = weights.read(weights.empty())
    along = random_direction(model, 0, "filter")

    def value(number: int) -> tuple[float, float]:
        weights.write(centre.add(along, alpha=SCALE * number / points))
        return loss_and_error(model, sample, batch)

    def made(among: World, count: int, kept: Path) -> None:
        values_at(count, value, 2, kept, {}, among, "landscape")

    alone = replace(world, comm=MPI.COMM_SELF)

    def turn(number: int) -> tuple[float, float]:
        def single() -> None:
            if world.rank == 0:
                made(alone, points, folder / f"{number}.one")

        def shared() -> None:
            made(world, points * world.size, folder / f"{number}.all")

        return slowest(world.comm, single), slowest(world.comm, shared)

    times = [turn(number) for number in range(rounds + 1)][1:]
    # The first turn touches memory for the first time.
    return {
        "seconds_per_point": median(single for single, _ in times) / points,
        "speed_up": median(world.size * single / shared for single, shared in times),
    }


class _Timed(Diagnostics):
    """Adds up the seconds of its gradients, up to when the last learner has its own."""

    seconds = 0.0

    def _gradient(self, inputs: Tensor, labels: Tensor) -> Tensor:
        began = time.perf_counter()
        found = super()._gradient(inputs, labels)
        found[:1].cpu()  # waits for the device
        self._strategy.world.comm.Barrier()
        self.seconds += time.perf_counter() - began
        return found


class _TimedLoss(OverallLoss):
    """Likewise; the sum over the ranks is part of it."""

    seconds = 0.0

    def gradient(self, network: nn.Module) -> tuple[float, Tensor]:
        began = time.perf_counter()
        found = super().gradient(network)
        self.seconds += time.perf_counter() - began
        return found


def diagnostics(
    model: nn.Module, data: Shards, batch: int, rounds: int, world: World
) -> dict[str, float]:
    """Seconds of an update's extra gradients on the slowest rank, and of all else in per cent.

    The probe set is `data`.
    """
    inputs, labels = _first(data, batch, world, first=world.rank * batch)
    inputs = network_input(inputs, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    strategy = DPSGD(model, GradientStep(optimizer), world, 0)
    overall = _TimedLoss(data, 0, 0, batch, world)
    measuring = _Timed(strategy, model, overall, every=1, accumulate=1, second_order=False)

    def gradients() -> float:
        return measuring.seconds + overall.seconds

    extra, own = [], []
    for _ in range(rounds + 2):
        before = gradients()
        spent = slowest(world.comm, lambda: measuring.before(inputs, labels))
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        backward(model, inputs, labels, 1)
        strategy.update()
        spent += slowest(world.comm, lambda: measuring.after(RATE))
        extra.append(max(world.comm.allgather(gradients() - before)))
        own.append(spent - extra[-1])
    # The first finds equal weights, which need fewer gradients; the next is the first of its kind.
    return {
        "gradients_seconds": median(extra[2:]),
        "own_percent": 100 * median(o / e for o, e in zip(own[2:], extra[2:], strict=True)),
    }


def _stand_in(folder: Path, name: str, samples: int) -> Shards:
    write_stand_in(folder, DATA[name], {"train": samples, "heldout": 1})
    return shard_set(path=str(folder))[0]


def _model(name: str, world: World) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().to(world.device)


def _first(data: Shards, count: int, world: World, first: int = 0) -> tuple[Tensor, Tensor]:
    """`count` samples from the `first` on, going round."""
    features, labels = data.buffers(count)
    data.gather((first + np.arange(count)) % len(data), features, labels)
    return features.to(world.device), labels.to(world.device)


def as_text(r: dict[str, Any]) -> str:
    """What was measured, with what is aimed at."""
    rows = [("", "gradient ms", "product, graph kept", "made anew", "target")]
    for name, m in r["products"].items():
        ratios = (f"{m[part]:.2f}" for part in ("kept", "anew"))
        rows.append((name, f"{1e3 * m['gradient_seconds']:.1f}", *ratios, f"<= {TARGETS[name]}"))
    scape = r["landscape"]
    aim = LANDSCAPE_TARGET * r["ranks"]
    lines = [
        f"{r['ranks']} ranks on {r['machine']} ({r['cores']} cores), batches of {r['batch']}, "
        f"{r['samples']} samples",
        *aligned(rows, 1),
        f"landscape of resnet20: {scape['seconds_per_point']:.3f} s per point on one rank; all "
        f"ranks {scape['speed_up']:.2f} times as fast (target >= {aim:.1f})",
    ]
    for name, m in r["diagnostics"].items():
        lines.append(
            f"diagnostics of {name}: {1e3 * m['gradients_seconds']:.0f} ms of gradients, and "
            f"{m['own_percent']:.1f} % of that for all else (target < {DIAGNOSTICS_TARGET:.0f} %)"
        )
    return "\n".join(lines)
