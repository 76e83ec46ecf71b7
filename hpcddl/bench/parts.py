"""What agreeing is made of, each part against what memory or MPI can do at best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn

from hpcddl.bench.timing import slowest
from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.average import Mean
from hpcddl.communication.compression import Sign
from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.optimizers import sgd

# Vectors (d,) that the code of each part reads or writes.
DPSGD_PASSES = {
    "read": 2,  # into the send buffer
    "optimizer": 5,  # reads w, g, m; writes w, m
    "mix": 4,  # reads w, what was sent, what came; writes w
}
AVERAGE_PASSES = {"read": 2, "write_divided": 2}


def measure(world: World, model: nn.Module, rounds: int) -> dict[str, Any]:
    """Medians over rounds of the slowest rank's seconds, every rank busy with the same.

    A pass is the time in which memory moves one vector (d,), at the better rate of a copy (two
    vectors) and of w <- w + a g (three).
    """
    tasks = _tasks(world, model)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            seconds[name].append(slowest(world.comm, task))
    # The first round touches buffers for the first time.
    times = {name: np.array(values[1:]) for name, values in seconds.items()}
    size = sum(p.nbytes for p in model.parameters())
    one_pass = np.minimum(times["copy"] / 2, times["add"] / 3)
    ratios = {
        "mean_to_allreduce_speed": times["allreduce"] / times["mean"],
        "dpsgd_passes": sum(times[part] for part in DPSGD_PASSES) / one_pass,
        "average_passes": sum(times[part] for part in AVERAGE_PASSES) / one_pass,
        "pass_gb_per_second": size / one_pass / 1e9,
        "encode_gb_per_second": size / times["encode"] / 1e9,
        "decode_gb_per_second": size / times["decode"] / 1e9,
    }
    return {
        "mib": size / 2**20,
        "seconds": {name: float(np.median(values)) for name, values in times.items()},
        **{name: float(np.median(values)) for name, values in ratios.items()},
    }


def _tasks(world: World, model: nn.Module) -> dict[str, Callable[[], object]]:
    """In the order of use: the mixing takes what the exchange has brought."""
    comm = world.comm
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = sgd(model, momentum=0.9)
    weights = FlatWeights(model)
    exchange = NeighbourExchange(comm, weights)
    pairs = np.eye(world.size) / 2
    pairs[np.arange(world.size), np.arange(world.size) ^ 1] = 0.5
    one, other = (torch.ones(weights.size) for _ in range(2))
    mean = Mean(comm)
    sign = Sign()
    message = sign.encode(one, weights.sizes)

    def transfer() -> None:
        exchange.start(pairs)
        exchange.finish()

    return {
        "copy": lambda: other.copy_(one),
        "add": lambda: other.add_(one, alpha=1e-3),
        "exchange": transfer,
        "optimizer": optimizer.step,
        "mix": exchange.mix,
        "read": lambda: weights.read(one),
        "allreduce": lambda: comm.Allreduce(MPI.IN_PLACE, one.numpy(), MPI.SUM),
        "mean": lambda: mean.add_up(one),
        "write_divided": lambda: weights.write(one, divisor=world.size),
        "encode": lambda: sign.encode(one, weights.sizes),
        "decode": lambda: sign.decode(message, weights.sizes, other),
    }


def as_text(r: dict[str, Any]) -> str:
    """One line per part of agreeing."""
    ms = {name: f"{1e3 * value:.1f}" for name, value in r["seconds"].items()}
    dpsgd, average = sum(DPSGD_PASSES.values()), sum(AVERAGE_PASSES.values())
    return (
        f"{r['mib']:.2f} MiB of weights, every rank busy; a pass over them: "
        f"{r['pass_gb_per_second']:.1f} GB/s\n"
        f"  mean: {r['mean_to_allreduce_speed']:.2f} of a bare in-place Allreduce's speed "
        f"({ms['mean']} ms, bare {ms['allreduce']} ms)\n"
        f"  DPSGD's step but the transfer: {r['dpsgd_passes']:.1f} passes; its code makes {dpsgd} "
        f"(send copy {ms['read']}, optimizer {ms['optimizer']}, mixing {ms['mix']} ms)\n"
        f"  local SGD's average but the transfer: {r['average_passes']:.1f} passes; its code makes "
        f"{average} (reading {ms['read']}, dividing into the weights {ms['write_divided']} ms)\n"
        f"  signs of float32 per core: packed at {r['encode_gb_per_second']:.1f} GB/s, "
        f"unpacked at {r['decode_gb_per_second']:.1f} GB/s"
    )
