"""`hpcddl bench strategies`: what agreeing costs, each strategy beside torch's own way.

Trains a bi-LSTM with every strategy, with torch's own equivalents and with no communication, in
turns of 16 steps on data in memory; then measures the parts of agreeing on the paper's whole
network. All numbers are medians over rounds of the slowest rank.

example: mpirun -np 2 --bind-to none hpcddl bench strategies
"""

import argparse
import copy
import os
from typing import Any

import numpy as np
from torch import Tensor, nn

from hpcddl.bench import benchmark as bench
from hpcddl.bench import parts, peers
from hpcddl.bench.inputs import WINDOW, random_windows
from hpcddl.bench.methods import ALONE, PEERS, methods
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.models.bilstm import bilstm

BLOCK = 16  # steps that are timed together: whole periods of every method
COLUMNS = (
    bench.Column("ms/step", "seconds_per_step", ".1f", 1e-3),
    bench.Column("x alone", "to_alone", ".3f"),
    bench.Column("says ms", "communicating_seconds_per_step", ".1f", 1e-3),
    bench.Column("MiB/step", "bytes_per_step", ".2f", 2**20),
    bench.Column("x its peer", "to_peer", ".3f"),
    bench.Column("peer", "peer"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench strategies`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("--classes", type=one, default=1000, help="classes of the network that is trained")
    add("--layers", type=one, default=2, help="its LSTM layers")
    add("--cells", type=one, default=256, help="its cells per layer and direction")
    add("--batch", type=one, default=8, help="windows of 21 frames per learner")
    add("--rounds", type=one, default=10, help=f"turns of {BLOCK} steps of each")
    add("--whole-classes", type=one, default=32000, help="of the network for the parts")
    add("--whole-cells", type=one, default=512, help="of the same; as they are: 164.62 MiB")


def _check(ranks: int) -> None:
    bench.even(ranks)
    if "HOROVOD_CYCLE_TIME" in os.environ:
        # With a fixed fusion size as well its tuner has nothing to tune and crashes.
        raise UserError("HOROVOD_CYCLE_TIME: must not be set where Horovod starts repeatedly")


def measure(
    world: World,
    *,
    classes: int,
    layers: int,
    cells: int,
    batch: int,
    rounds: int,
    whole_classes: int,
    whole_cells: int,
) -> bench.Result:
    """Compares the methods on one network, and measures the parts of agreeing on the other."""
    model = bilstm(WINDOW, classes, layers=layers, cells=cells)
    features, labels = random_windows(batch, classes, seed=world.rank)
    return {
        **bench.machine(),
        "ranks": world.size,
        "windows": batch,
        "mib": sum(p.nbytes for p in model.parameters()) / 2**20,
        **_compared(world, model, features, labels, rounds),
        "parts": parts.measure(world, bilstm(WINDOW, whole_classes, cells=whole_cells), rounds),
    }


def _compared(
    world: World, model: nn.Module, features: Tensor, labels: Tensor, rounds: int
) -> dict[str, Any]:
    """Takes `summary` of a run, and what each strategy says of itself: options, bytes, seconds."""
    with peers.gloo(world):
        built = {
            name: build(copy.deepcopy(model), world) for name, build in methods(world.size).items()
        }
        turns = bench.in_turns(
            built, rounds, lambda method: method.turn(world, features, labels, BLOCK)
        )
    result = summary({name: values[:, 0] for name, values in turns.items()})
    for name, method in built.items():
        if method.strategy:
            result["methods"][name] |= {
                "strategy": method.strategy,
                "bytes_per_step": float(turns[name][-1, 2]),
                "communicating_seconds_per_step": float(np.median(turns[name][:, 1])),
            }
    return result


def summary(times: dict[str, bench.Numbers]) -> dict[str, Any]:
    """Takes medians of every method's seconds per step by round, and of ratios within rounds.

    A method's cost is its time beyond that without communication. `excess` is local SGD's cost with
    H = 16 beyond 1/16 of SSGD's, in steps without communication.
    """
    alone = times[ALONE]
    found: dict[str, dict[str, Any]] = {
        name: {"seconds_per_step": float(np.median(t)), "to_alone": float(np.median(t / alone))}
        for name, t in times.items()
    }
    for name, peer in PEERS.items():
        to_peer = float(np.median(times[name] / times[peer]))
        found[name] |= {"peer": peer, "to_peer": to_peer}
    excess = (times["local SGD, H = 16"] - alone - (times["SSGD"] - alone) / 16) / alone
    return {"methods": found, "excess": float(np.median(excess))}


def as_text(r: bench.Result) -> str:
    """Lays out the table, and says what the parts cost."""
    lines = [
        f"{r['ranks']} ranks on {r['machine']} ({r['cores']} cores), bi-LSTM of {r['mib']:.1f} "
        f"MiB, {r['windows']} windows per rank; medians of the slowest rank",
        *bench.table(r["methods"], COLUMNS),
        f"local SGD, H = 16: costs {100 * r['excess']:+.1f} % of a step beyond 1/16 of SSGD's cost",
        "",
        parts.as_text(r["parts"]),
    ]
    return "\n".join(lines)


run = bench.command(measure, as_text, _check)
