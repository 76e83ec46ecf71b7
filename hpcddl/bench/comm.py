"""`hpcddl bench comm`: the neighbour exchange against bare MPI and against a memory copy.

Exchanges the bi-LSTM's weights between pairs of ranks, and times each part.

example: mpirun -np 2 --bind-to none hpcddl bench comm
"""

import argparse

import numpy as np
import torch
from mpi4py import MPI

from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import WINDOW, pairs
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.exchange import NeighbourExchange
from hpcddl.models.bilstm import bilstm

TEXT = """\
exchange of {mib:.2f} MiB between pairs of {ranks} ranks
  transfer: {transfer_to_bare_speed:.2f} of a bare Sendrecv's speed \
({transfer_ms:.1f} ms, bare {bare_sendrecv_ms:.1f} ms)
  copy into the send buffer: {copy_in_memcpys:.2f} memcpy \
({copy_ms:.1f} ms; memcpy {memcpy_ms:.1f} ms)
  mixing into the weights: {mix_in_memcpys:.2f} memcpy ({mix_ms:.1f} ms)
  a mixture is exact to {rounding_error:.1e} of the weights, root mean square"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench comm`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("--classes", type=one, default=32000, help="32,000: 164.62 MiB of weights")
    add("--repeats", type=one, default=15, help="rounds; medians are reported")
    add(
        "--exchange-dtype",
        choices=["bfloat16", "float16"],
        help="what the weights travel as; says what that costs in accuracy",
    )


def measure(
    world: World, *, classes: int, repeats: int, exchange_dtype: str | None
) -> bench.Result:
    """Takes medians over rounds of the slowest rank's seconds; all parts in every round.

    `rounding_error` is how far a mixture is from the exact one, root mean square, relative to the
    weights.
    """
    comm, peer = world.comm, world.rank ^ 1
    torch.manual_seed(world.rank)
    weights = FlatWeights(bilstm(WINDOW, classes).to(world.device))
    dtype = getattr(torch, exchange_dtype) if exchange_dtype else None
    exchange = NeighbourExchange(comm, weights, dtype=dtype)
    mixing = pairs(world.size)
    sent, received = (torch.ones(weights.size, dtype=weights.dtype) for _ in range(2))

    def send() -> None:
        comm.Sendrecv(sent, peer, recvbuf=received, source=peer)

    def mix() -> list[float]:
        comm.Barrier()
        exchange.start(mixing)
        exchange.finish()
        exchange.mix()
        parts = (exchange.transfer_seconds, exchange.copy_seconds, exchange.mix_seconds)
        return np.max(comm.allgather(parts), axis=0).tolist()

    exact = weights.read(weights.empty()).double().cpu()
    theirs = torch.empty_like(exact)
    comm.Sendrecv(exact, peer, recvbuf=theirs, source=peer)
    exact.add_(theirs).div_(2)
    mix()
    error = (weights.read(weights.empty()).cpu() - exact).norm() / exact.norm()

    def turn() -> list[float]:
        bare = bench.slowest(comm, send)
        return [bare, bench.slowest(comm, lambda: received.copy_(sent)), *mix()]

    # The first rounds touch the buffers' pages for the first time.
    turns = [turn() for _ in range(repeats + 2)][2:]
    bare, memcpy, transfer, copy, mixed = np.median(turns, axis=0).tolist()
    return {
        "mib": weights.size * 4 / 2**20,
        "rounding_error": comm.allreduce(float(error), MPI.MAX),
        "ranks": world.size,
        "bare_sendrecv_seconds": bare,
        "transfer_seconds": transfer,
        "memcpy_seconds": memcpy,
        "copy_seconds": copy,
        "mix_seconds": mixed,
        "transfer_to_bare_speed": bare / transfer,
        "copy_in_memcpys": copy / memcpy,
        "mix_in_memcpys": mixed / memcpy,
    }


def as_text(result: bench.Result) -> str:
    """Says the measurement in a few lines."""
    parts = ("transfer", "bare_sendrecv", "copy", "memcpy", "mix")
    return TEXT.format(**result, **{f"{p}_ms": 1e3 * result[f"{p}_seconds"] for p in parts})


run = bench.command(measure, as_text, bench.even)
