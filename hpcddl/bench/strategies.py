"""`hpcddl bench strategies`: what agreeing costs, each strategy beside torch's own way."""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
from typing import Any

import numpy as np
import torch
from torch import nn

from hpcddl.bench import parts, peers
from hpcddl.bench.checks import check
from hpcddl.bench.methods import ALONE, PEERS, methods
from hpcddl.bench.timing import slowest
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.models.bilstm import bilstm

BLOCK = 16  # steps that are timed together: whole periods of every method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench strategies`."""
    parser.description = (
        f"Trains a bi-LSTM with every strategy, with torch's own equivalents and with {ALONE}, in "
        f"turns of {BLOCK} steps on data in memory; then measures the parts of agreeing on the "
        "paper's whole network. All numbers are medians over rounds of the slowest rank."
    )
    parser.epilog = "example: mpirun -np 2 --bind-to none hpcddl bench strategies"
    add = parser.add_argument
    add("--classes", type=int, default=1000, help="classes of the network that is trained")
    add("--layers", type=int, default=2, help="its LSTM layers")
    add("--cells", type=int, default=256, help="its cells per layer and direction")
    add("--batch", type=int, default=8, help="windows of 21 frames per learner")
    add("--rounds", type=int, default=10, help=f"turns of {BLOCK} steps of each")
    add("--whole-classes", type=int, default=32000, help="of the network for the parts")
    add("--whole-cells", type=int, default=512, help="of the same; as they are: 164.62 MiB")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints on rank 0."""
    world = World.create()
    a = arguments
    with world.failing_together():
        world.together(lambda: _check(world, a))
        model = bilstm((21, 260), a.classes, layers=a.layers, cells=a.cells)
        result = {
            "machine": platform.node(),
            "cores": len(os.sched_getaffinity(0)),
            "ranks": world.size,
            "windows": a.batch,
            "mib": sum(p.nbytes for p in model.parameters()) / 2**20,
            **measure(world, model, a.classes, a.batch, a.rounds),
        }
        whole = bilstm((21, 260), a.whole_classes, cells=a.whole_cells)
        result["parts"] = parts.measure(world, whole, a.rounds)
    if world.rank == 0:
        print(json.dumps(result) if a.json else as_text(result))
    return 0


def _check(world: World, arguments: argparse.Namespace) -> None:
    counts = ("classes", "layers", "cells", "batch", "rounds", "whole_classes", "whole_cells")
    check("bench strategies", world, arguments, *counts)
    if "HOROVOD_CYCLE_TIME" in os.environ:
        # With a fixed fusion size as well its tuner has nothing to tune and crashes.
        raise UserError("HOROVOD_CYCLE_TIME: must not be set where Horovod starts repeatedly")


def measure(
    world: World, model: nn.Module, classes: int, batch: int, rounds: int
) -> dict[str, Any]:
    """`summary` of a run, and what each strategy says of itself: its options, bytes and seconds."""
    data = torch.Generator().manual_seed(world.rank)
    features = torch.randn(batch, 21, 260, generator=data)
    labels = torch.randint(classes, (batch, 21), generator=data)
    with peers.gloo(world):
        built = {
            name: build(copy.deepcopy(model), world) for name, build in methods(world.size).items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in built}
        communicating: dict[str, list[float]] = {name: [] for name in built}
        sent: dict[str, float] = {}

        def block() -> None:
            for _ in range(BLOCK):
                method.iterate(features, labels)

        for _ in range(rounds + 1):
            for name, method in built.items():
                with method.ready(world, features, labels):
                    before = copy.copy(method.traffic)
                    seconds[name].append(slowest(world.comm, block) / BLOCK)
                sent[name] = (method.traffic.bytes_sent - before.bytes_sent) / BLOCK
                spent = (method.traffic.seconds - before.seconds) / BLOCK
                communicating[name].append(max(world.comm.allgather(spent)))
    # The first round touches buffers for the first time.
    result = summary({name: values[1:] for name, values in seconds.items()})
    for name, method in built.items():
        if method.strategy:
            result["methods"][name] |= {
                "strategy": method.strategy,
                "bytes_per_step": sent[name],
                "communicating_seconds_per_step": statistics.median(communicating[name][1:]),
            }
    return result


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of every method's seconds per step by round, and of ratios within rounds.

    A method's cost is its time beyond that without communication. `excess` is local SGD's cost with
    H = 16 beyond 1/16 of SSGD's, in steps without communication.
    """
    times = {name: np.array(values) for name, values in seconds.items()}
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


def as_text(r: dict[str, Any]) -> str:
    """The table, and what the parts cost."""
    width = max(map(len, r["methods"]))
    lines = [
        f"{r['ranks']} ranks on {r['machine']} ({r['cores']} cores), bi-LSTM of {r['mib']:.1f} "
        f"MiB, {r['windows']} windows per rank; medians of the slowest rank",
        f"{'':{width}} {'ms/step':>8} {'x alone':>8} {'says ms':>8} {'MiB/step':>9}  x its peer",
    ]
    for name, m in r["methods"].items():
        line = f"{name:{width}} {1e3 * m['seconds_per_step']:8.1f} {m['to_alone']:8.3f}"
        if "bytes_per_step" in m:
            said = m["communicating_seconds_per_step"]
            line += f" {1e3 * said:8.1f} {m['bytes_per_step'] / 2**20:9.2f}"
        if "peer" in m:
            line += f"  {m['to_peer']:.3f} {m['peer']}"
        lines.append(line)
    lines.append(
        f"local SGD, H = 16: costs {100 * r['excess']:+.1f} % of a step beyond 1/16 of SSGD's cost"
    )
    return "\n".join([*lines, "", parts.as_text(r["parts"])])
