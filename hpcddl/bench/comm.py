"""`hpcddl bench comm`: the neighbour exchange against bare MPI and against a memory copy."""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from mpi4py import MPI

from hpcddl.bench.checks import check
from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.models.bilstm import bilstm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl bench comm`."""
    parser.description = (
        "Exchange the bi-LSTM's weights between pairs of ranks, and time each part."
    )
    parser.epilog = "example: mpirun -np 2 --bind-to none hpcddl bench comm"
    parser.add_argument("--classes", type=int, default=32000, help="32,000: 164.62 MiB of weights")
    parser.add_argument("--repeats", type=int, default=15, help="rounds; medians are reported")
    parser.add_argument(
        "--exchange-dtype",
        choices=["bfloat16", "float16"],
        help="what the weights travel as; says what that costs in accuracy",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the ratios on rank 0."""
    world = World.create()
    with world.failing_together():
        world.together(lambda: check("bench comm", world, arguments, "classes", "repeats"))
        result = measure(world, arguments.classes, arguments.repeats, arguments.exchange_dtype)
    if world.rank == 0:
        print(json.dumps(result) if arguments.json else as_text(result))
    return 0


def measure(
    world: World, classes: int, repeats: int, exchange_dtype: str | None = None
) -> dict[str, float]:
    """Medians over `repeats` rounds of the slowest rank's seconds; all parts in every round.

    `rounding_error` is how far a mixture is from the exact one, root mean square, relative to the
    weights.
    """
    torch.manual_seed(world.rank)
    weights = FlatWeights(bilstm((21, 260), classes).to(world.device))
    dtype = getattr(torch, exchange_dtype) if exchange_dtype else None
    exchange = NeighbourExchange(world.comm, weights, dtype=dtype)
    peer = world.rank ^ 1
    pairs = np.eye(world.size) / 2
    pairs[np.arange(world.size), np.arange(world.size) ^ 1] = 0.5
    sent, received = (torch.ones(weights.size, dtype=weights.dtype) for _ in range(2))

    def seconds(work: Callable[[], object]) -> float:
        world.comm.Barrier()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    exact = weights.read(weights.empty()).double().cpu()
    theirs = torch.empty_like(exact)
    world.comm.Sendrecv(exact, peer, recvbuf=theirs, source=peer)
    exact.add_(theirs).div_(2)
    exchange.start(pairs)
    exchange.finish()
    exchange.mix()
    error = (weights.read(weights.empty()).cpu() - exact).norm() / exact.norm()

    rounds = []
    for _ in range(repeats + 2):
        bare = seconds(lambda: world.comm.Sendrecv(sent, peer, recvbuf=received, source=peer))
        copy = seconds(lambda: received.copy_(sent))
        world.comm.Barrier()
        exchange.start(pairs)
        exchange.finish()
        exchange.mix()
        parts = (exchange.transfer_seconds, exchange.copy_seconds, exchange.mix_seconds)
        slowest = np.array([bare, copy, *parts])
        world.comm.Allreduce(MPI.IN_PLACE, slowest, MPI.MAX)
        rounds.append(slowest)
    # The first rounds touch the buffers' pages for the first time.
    bare, copy, transfer, pack, mix = (
        statistics.median(values) for values in zip(*rounds[2:], strict=True)
    )
    return {
        "mib": weights.size * 4 / 2**20,
        "rounding_error": world.comm.allreduce(float(error), MPI.MAX),
        "ranks": world.size,
        "bare_sendrecv_seconds": bare,
        "transfer_seconds": transfer,
        "memcpy_seconds": copy,
        "copy_seconds": pack,
        "mix_seconds": mix,
        "transfer_to_bare_speed": bare / transfer,
        "copy_in_memcpys": pack / copy,
        "mix_in_memcpys": mix / copy,
    }


def as_text(r: dict[str, float]) -> str:
    """The measurement as a few lines."""
    return (
        f"exchange of {r['mib']:.2f} MiB between pairs of {r['ranks']} ranks\n"
        f"  transfer: {r['transfer_to_bare_speed']:.2f} of a bare Sendrecv's speed "
        f"({1e3 * r['transfer_seconds']:.1f} ms, bare {1e3 * r['bare_sendrecv_seconds']:.1f} ms)\n"
        f"  copy into the send buffer: {r['copy_in_memcpys']:.2f} memcpy "
        f"({1e3 * r['copy_seconds']:.1f} ms; memcpy {1e3 * r['memcpy_seconds']:.1f} ms)\n"
        f"  mixing into the weights: {r['mix_in_memcpys']:.2f} memcpy "
        f"({1e3 * r['mix_seconds']:.1f} ms)\n"
        f"  a mixture is exact to {r['rounding_error']:.1e} of the weights, root mean square"
    )
