"""`hpcddl bench network`: each strategy's step on emulated slow networks.

Trains a bi-LSTM with each strategy on emulated networks between two nodes: links on which a message
of all weights takes 0.8 and 1.6 times as long as forward and backward, by their bandwidth and by
their latency, and a delay of every average over all learners (paper B fig. 19). Seconds per step of
the slowest rank.

example: mpirun -np 2 --bind-to none hpcddl bench network
"""

import argparse
import copy
from dataclasses import replace
from typing import Any

from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import WINDOW, random_windows
from hpcddl.bench.methods import ALONE, Build, nobody, ours
from hpcddl.cluster.network import EmulatedNetwork, Link, Network
from hpcddl.cluster.world import World
from hpcddl.common.bounds import at_least
from hpcddl.common.progress import Progress
from hpcddl.models.bilstm import bilstm
from hpcddl.training.evaluate import classification_loss

_PERIOD = 16  # steps from one average over all to the next, of those that have local steps
METHODS: dict[str, tuple[Build, int]] = {  # and the steps of a whole period
    ALONE: (nobody, 1),
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
    """Declares the options of `hpcddl bench network`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("--classes", type=one, default=1000, help="classes of the network")
    add("--cells", type=one, default=256, help="LSTM cells per layer and direction, 2 layers")
    add("--batch", type=one, default=8, help="windows of 21 frames per learner")
    add("--periods", type=one, default=3, help="of 16 steps where nothing is delayed for seconds")
    add(
        "--delays",
        type=at_least(0.0),
        nargs="+",
        default=[1.0, 50.0],
        help="seconds per global round",
    )


def measure(
    world: World, *, classes: int, cells: int, batch: int, periods: int, delays: list[float]
) -> bench.Result:
    """Takes seconds per step of every method on every network, and of computing alone."""
    model = bilstm(WINDOW, classes, layers=2, cells=cells)
    features, labels = random_windows(batch, classes, seed=world.rank)

    def compute() -> None:
        for _ in range(_PERIOD):
            model.zero_grad()
            classification_loss(model(features), labels).backward()

    # The best of several: the links must not be slower than what is to hide them.
    alone = min(bench.slowest(world.comm, compute) for _ in range(2 + periods)) / _PERIOD
    nbytes = sum(p.nbytes for p in model.parameters())
    networks = {"as it is": _emulated(world, Link())}
    for share in (0.8, 1.6):
        narrow = Link(bytes_per_second=nbytes / (share * alone))
        networks[f"narrow, {share:g}"] = _emulated(world, narrow)
        networks[f"far, {share:g}"] = _emulated(world, Link(latency_seconds=share * alone))
    for delay in delays:
        networks[f"{delay:g} s a round"] = _emulated(world, Link(), delay)

    seconds: dict[str, dict[str, float]] = {name: {} for name in METHODS}
    count = len(METHODS) * len(networks)
    with Progress(count, "bench network", "runs", shown=world.rank == 0) as progress:
        for network, emulated in networks.items():
            for name, (build, period) in METHODS.items():
                # A delay of seconds dwarfs the step's own variation: one period shows it.
                steps = period if network.endswith("round") else periods * _PERIOD
                method = build(copy.deepcopy(model), emulated)
                seconds[name][network], *_ = method.turn(world, features, labels, steps)
                progress.add()
    return {
        "ranks": world.size,
        "mib": nbytes / 2**20,
        "forward_backward_seconds": alone,
        "seconds_per_step": seconds,
    }


def _emulated(world: World, between: Link, round_delay_seconds: float = 0.0) -> World:
    """Makes two nodes of half the learners each; inside a node nothing is added."""
    half = world.size // 2
    node: Any = world.comm.Split(world.rank // half)
    nodes = [rank // half for rank in range(world.size)]
    network: Network = EmulatedNetwork(world.comm, nodes, Link(), between, round_delay_seconds)
    return replace(world, node=node, network=network)


def as_text(r: bench.Result) -> str:
    """Lays out a row for each method, a column for each network; in milliseconds."""
    rows = r["seconds_per_step"]
    networks = [bench.Column(name, name, ".1f", 1e-3) for name in rows[ALONE]]
    head = (
        f"{r['ranks']} learners on 2 emulated nodes, {r['mib']:.1f} MiB of weights, forward and "
        f"backward {1e3 * r['forward_backward_seconds']:.1f} ms; ms per step"
    )
    return "\n".join([head, *bench.table(rows, networks)])


run = bench.command(measure, as_text, bench.even)
