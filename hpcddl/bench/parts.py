"""What agreeing is made of, each part against what memory or MPI can do at best."""

from functools import partial
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn

from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import pairs
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
TEXT = """\
{mib:.2f} MiB of weights, every rank busy; a pass over them: {pass_gb_per_second:.1f} GB/s
  mean: {mean_to_allreduce_speed:.2f} of a bare in-place Allreduce's speed \
({mean_ms:.1f} ms, bare {allreduce_ms:.1f} ms)
  DPSGD's step but the transfer: {dpsgd_passes:.1f} passes; its code makes {dpsgd} \
(send copy {read_ms:.1f}, optimizer {optimizer_ms:.1f}, mixing {mix_ms:.1f} ms)
  local SGD's average but the transfer: {average_passes:.1f} passes; its code makes {average} \
(reading {read_ms:.1f}, dividing into the weights {write_divided_ms:.1f} ms)
  signs of float32 per core: packed at {encode_gb_per_second:.1f} GB/s, \
unpacked at {decode_gb_per_second:.1f} GB/s"""


def measure(world: World, model: nn.Module, rounds: int) -> dict[str, Any]:
    """Takes medians over rounds of the slowest rank's seconds, every rank busy with the same.

    A pass is the time in which memory moves one vector (d,), at the better rate of a copy (two
    vectors) and of w <- w + a g (three).
    """
    times = bench.in_turns(_tasks(world, model), rounds, partial(bench.slowest, world.comm))
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
        "seconds": bench.medians(times),
        **bench.medians(ratios),
    }


def _tasks(world: World, model: nn.Module) -> dict[str, bench.Work]:
    """Makes the parts in the order of use: the mixing takes what the exchange has brought."""
    comm = world.comm
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    weights = FlatWeights(model)
    exchange = NeighbourExchange(comm, weights)
    mixing = pairs(world.size)
    one, other = (torch.ones(weights.size) for _ in range(2))
    mean = Mean(comm)
    sign = Sign()
    message = sign.encode(one, weights.sizes)

    def transfer() -> None:
        exchange.start(mixing)
        exchange.finish()

    return {
        "copy": lambda: other.copy_(one),
        "add": lambda: other.add_(one, alpha=1e-3),
        "exchange": transfer,
        "optimizer": sgd(model, momentum=0.9).step,
        "mix": exchange.mix,
        "read": lambda: weights.read(one),
        "allreduce": lambda: comm.Allreduce(MPI.IN_PLACE, one.numpy(), MPI.SUM),
        "mean": lambda: mean.add_up(one),
        "write_divided": lambda: weights.write(one, divisor=world.size),
        "encode": lambda: sign.encode(one, weights.sizes),
        "decode": lambda: sign.decode(message, weights.sizes, other),
    }


def as_text(r: dict[str, Any]) -> str:
    """Says what each part costs, a line each."""
    milliseconds = {f"{name}_ms": 1e3 * value for name, value in r["seconds"].items()}
    passes = {"dpsgd": sum(DPSGD_PASSES.values()), "average": sum(AVERAGE_PASSES.values())}
    return TEXT.format(**r, **milliseconds, **passes)
