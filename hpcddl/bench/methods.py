"""What `hpcddl bench strategies` compares: name -> how it is built on one learner."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from hpcddl.bench import peers
from hpcddl.bench.benchmark import slowest
from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.communication import horovod
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Traffic
from hpcddl.training.evaluate import classification_loss

ALONE = "no communication"
PEERS = {  # torch's own, which end with the same weights
    "SSGD": "DDP",
    "local SGD, H = 4": "PostLocalSGDOptimizer, H = 4",
    "local SGD, H = 16": "PostLocalSGDOptimizer, H = 16",
    "hierarchical, H = 4, 16": "HierarchicalModelAverager",
}


@dataclass(frozen=True)
class Method:
    """One learner's way to train: `iterate` makes one step on features and labels."""

    iterate: Callable[[Tensor, Tensor], None]
    strategy: dict[str, Any]  # as a recipe has it; torch's own have none, and count no traffic
    traffic: Traffic
    horovod: bool

    def turn(self, world: World, features: Tensor, labels: Tensor, steps: int) -> list[float]:
        """Trains for some steps; Horovod runs meanwhile if it is used, as it slows all others down.

        Returns:
            Per step: seconds of the slowest rank, those it says to communicate, and bytes it sends.
        """

        def train() -> None:
            for _ in range(steps):
                self.iterate(features, labels)

        if self.horovod:
            horovod.start(world, fusion_mib=0)
            self.iterate(features, labels)  # learners tell each other their tensors' names
        before = copy.copy(self.traffic)
        spent = slowest(world.comm, train)
        if self.horovod:
            hvd.shutdown()
        said = max(world.comm.allgather(self.traffic.seconds - before.seconds))
        sent = self.traffic.bytes_sent - before.bytes_sent
        return [spent / steps, said / steps, sent / steps]


Build = Callable[[nn.Module, World], Method]


def ours(name: str, *, optimizer: str = "sgd", **options: Any) -> Build:
    """Makes what builds a strategy, with its options as in a recipe."""

    def build(model: nn.Module, world: World) -> Method:
        recipe = {"name": name, **options}
        choice = From(STRATEGIES).choose(recipe)
        local = GradientStep(_optimizer(model, optimizer))
        strategy = choice.build(STRATEGIES, model, local, world, 0)

        def iterate(features: Tensor, labels: Tensor) -> None:
            strategy.optimizer.zero_grad()
            strategy.before_forward()
            classification_loss(model(features), labels).backward()
            strategy.update()

        return Method(iterate, recipe, strategy.traffic, _stop_horovod())

    return build


def theirs(build_peer: Callable[[nn.Module, torch.optim.Optimizer], peers.Peer]) -> Build:
    """Makes what builds a model and an optimizer that communicate by themselves, or do not."""

    def build(model: nn.Module, world: World) -> Method:
        peer, optimizer = build_peer(model, _optimizer(model, "sgd"))

        def iterate(features: Tensor, labels: Tensor) -> None:
            optimizer.zero_grad()
            classification_loss(peer(features), labels).backward()
            optimizer.step()

        return Method(iterate, {}, Traffic(), _stop_horovod())

    return build


def _stop_horovod() -> bool:
    """Stops Horovod where building a method has started it; whether it had."""
    started: bool = hvd.is_initialized()
    if started:
        hvd.shutdown()
    return started


def _optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    choice = From(OPTIMIZERS).choose({"name": name, "momentum": 0.9})
    optimizer: torch.optim.Optimizer = choice.build(OPTIMIZERS, model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    return optimizer


nobody = theirs(lambda model, optimizer: (model, optimizer))  # trains alone


def methods(ranks: int) -> dict[str, Build]:
    """Makes the table for `ranks` learners; no period is longer than 16 steps."""
    blocks: dict[str, Any] = {"steps": 4, "block_steps": 4, "block_size": ranks // 2}
    return {
        ALONE: nobody,
        "SSGD": ours("ssgd"),
        "DDP": theirs(peers.data_parallel),
        "DPSGD": ours("dpsgd"),
        "DPSGD, delayed": ours("dpsgd", delayed=True),
        "local SGD, H = 4": ours("local_sgd", steps=4),
        "PostLocalSGDOptimizer, H = 4": theirs(partial(peers.periodic, steps=4)),
        "local SGD, H = 16": ours("local_sgd", steps=16),
        "PostLocalSGDOptimizer, H = 16": theirs(partial(peers.periodic, steps=16)),
        "hierarchical, H = 4, 16": ours("local_sgd", **blocks),
        "HierarchicalModelAverager": theirs(partial(peers.hierarchical, **blocks)),
        "EF-signSGD, H = 4": ours("local_sgd", steps=4, compression="sign"),
        "majority vote": ours("majority_vote", optimizer="sign_sgd"),
    }
