"""`hpcddl bench analysis`: what curvature, landscapes and live diagnostics cost.

On random samples, of ResNet-20 and of a bi-LSTM of 2 x 256 cells and 1000 classes: a Hessian-vector
product in gradients, with the gradient's graph kept and without; how many times as fast all ranks
make ResNet-20's landscape as one does; what the diagnostics of a DPSGD update take beside their
gradients.

example: mpirun -np 2 --bind-to none hpcddl bench analysis
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from math import inf
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.points import values_at
from hpcddl.analysis.sample_loss import draw_sample, loss_and_error
from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import IMAGES, random_images, random_windows
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.flat import FlatWeights
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
CONTENTS = {"resnet20": IMAGES, "bilstm": replace(KNOWN["swb300"], classes=CLASSES)}
BATCHES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "resnet20": random_images,
    "bilstm": partial(random_windows, classes=CLASSES),
}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "bilstm": partial(bilstm, layers=2, cells=256),
}
TARGETS = {"resnet20": 3, "bilstm": 10}  # gradients per product, at most
LANDSCAPE_TARGET, DIAGNOSTICS_TARGET = 0.9, 5.0  # of n ranks; per cent, at most
SCALE = 0.1  # of the landscape
RATE = 1e-3
COLUMNS = (
    bench.Column("gradient ms", "gradient_seconds", ".1f", 1e-3),
    bench.Column("product, graph kept", "kept", ".2f"),
    bench.Column("made anew", "anew", ".2f"),
    bench.Column("target <=", "target", ".0f"),
    bench.Column("diagnostics ms", "gradients_seconds", ".0f", 1e-3),
    bench.Column("all else %", "own_percent", ".1f"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench analysis`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("--batch", type=at_least(2), default=16, help="samples at once")  # 2: batch norm's
    add("--samples", type=one, default=1024, help="of the landscape, and of the probe set")
    add("--points", type=one, default=4, help="of the landscape, per rank")
    add("--rounds", type=one, default=5, help="turns of each")


def measure(world: World, *, batch: int, samples: int, points: int, rounds: int) -> bench.Result:
    """Measures products, landscape and diagnostics; each rank has its own data."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        data = {}
        for name, contents in CONTENTS.items():
            write_stand_in(folder / name, contents, {"train": samples, "heldout": 1})
            data[name] = shard_set(path=str(folder / name))[0]
        return {
            **bench.machine(),
            "ranks": world.size,
            "batch": batch,
            "samples": samples,
            "products": {name: products(name, batch, rounds, world) for name in MODELS},
            "landscape": landscape(data["resnet20"], points, batch, rounds, world, folder),
            "diagnostics": {
                name: diagnostics(name, data[name], batch, rounds, world) for name in MODELS
            },
        }


def products(name: str, batch: int, rounds: int, world: World) -> dict[str, float]:
    """Takes the best seconds of a gradient, and products in gradients, on all ranks at once.

    Of two batches, whose graphs are both kept or both made anew.
    """
    model = _model(name, world).eval()
    features, labels = _batch(name, 2 * batch, world, seed=0)
    batches = list(zip(features.split(batch), labels.split(batch), strict=True))
    kept = Hessian(model, batches, 2 * batch, inf)
    anew = Hessian(model, batches, 2 * batch)
    vector = random_direction(model, 0, "none")
    tasks = {
        # .cpu() waits for the device.
        "gradient": lambda: anew.gradient().cpu(),
        "kept": lambda: kept(vector).cpu(),
        "anew": lambda: anew(vector).cpu(),
    }
    best = bench.best(bench.in_turns(tasks, rounds, bench.seconds))
    gradient = best["gradient"]
    ratios = {way: best[way] / gradient for way in ("kept", "anew")}
    return {"gradient_seconds": gradient, **ratios}


def landscape(
    data: Shards, points: int, batch: int, rounds: int, world: World, folder: Path
) -> dict[str, float]:
    """Takes seconds per point of rank 0 alone, and how many times as fast all are together."""
    model = _model("resnet20", world).eval()
    sample = draw_sample(data, len(data), 0, world.device)
    weights = FlatWeights(model)
    centre = weights.read(weights.empty())
    along = random_direction(model, 0, "filter")
    numbers = count()

    def value(number: int) -> tuple[float, float]:
        weights.write(centre.add(along, alpha=SCALE * number / points))
        return loss_and_error(model, sample, batch)

    def made(among: World, number_of_points: int) -> None:
        kept = folder / f"{next(numbers)}.points"  # a new file, so that nothing is made already
        values_at(number_of_points, value, 2, kept, {}, among, "landscape")

    def single() -> None:
        if world.rank == 0:
            made(replace(world, comm=MPI.COMM_SELF), points)

    tasks = {"single": single, "shared": lambda: made(world, points * world.size)}
    times = bench.in_turns(tasks, rounds, partial(bench.slowest, world.comm))
    return {
        "seconds_per_point": float(np.median(times["single"])) / points,
        "speed_up": float(np.median(world.size * times["single"] / times["shared"])),
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
    """Adds up the seconds of its gradients; the sum over the ranks is part of them."""

    seconds = 0.0

    def gradient(self, network: nn.Module) -> tuple[float, Tensor]:
        began = time.perf_counter()
        found = super().gradient(network)
        self.seconds += time.perf_counter() - began
        return found


def diagnostics(name: str, data: Shards, batch: int, rounds: int, world: World) -> dict[str, float]:
    """Takes an update's seconds of extra gradients on the slowest rank, and all else in per cent.

    The probe set is `data`.
    """
    model = _model(name, world)
    inputs, labels = _batch(name, batch, world, seed=world.rank)
    inputs = network_input(inputs, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    strategy = DPSGD(model, GradientStep(optimizer), world, 0)
    overall = _TimedLoss(data, 0, 0, batch, world)
    measuring = _Timed(strategy, model, overall, every=1, accumulate=1, second_order=False)

    def update() -> list[float]:
        before = measuring.seconds + overall.seconds
        spent = bench.slowest(world.comm, lambda: measuring.before(inputs, labels))
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        backward(model, inputs, labels, 1)
        strategy.update()
        spent += bench.slowest(world.comm, lambda: measuring.after(RATE))
        extra = max(world.comm.allgather(measuring.seconds + overall.seconds - before))
        return [extra, spent - extra]

    # The first finds equal weights, which need fewer gradients; the next is the first of its kind.
    extra, own = np.transpose([update() for _ in range(rounds + 2)][2:])
    return {
        "gradients_seconds": float(np.median(extra)),
        "own_percent": 100 * float(np.median(own / extra)),
    }


def _model(name: str, world: World) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](CONTENTS[name].shape, CONTENTS[name].classes).to(world.device)


def _batch(name: str, count: int, world: World, seed: int) -> tuple[Tensor, Tensor]:
    features, labels = BATCHES[name](count, seed=seed)
    return features.to(world.device), labels.to(world.device)


def as_text(r: bench.Result) -> str:
    """Says what was measured, with what is aimed at."""
    rows = {
        name: {**product, **r["diagnostics"][name], "target": TARGETS[name]}
        for name, product in r["products"].items()
    }
    scape = r["landscape"]
    lines = [
        f"{r['ranks']} ranks on {r['machine']} ({r['cores']} cores), batches of {r['batch']}, "
        f"{r['samples']} samples",
        *bench.table(rows, COLUMNS),
        "products are in gradients; diagnostics: ms of an update's extra gradients, and all else "
        f"in % of that (target < {DIAGNOSTICS_TARGET:.0f} %)",
        f"landscape of resnet20: {scape['seconds_per_point']:.3f} s per point on one rank; all "
        f"ranks {scape['speed_up']:.2f} times as fast (target >= "
        f"{LANDSCAPE_TARGET * r['ranks']:.1f})",
    ]
    return "\n".join(lines)


run = bench.command(measure, as_text, check=lambda ranks: None)
