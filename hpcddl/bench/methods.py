"""What `hpcddl bench strategies` compares: name -> how it is built on one learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from hpcddl.bench import peers
from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.communication import horovod
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Traffic
from hpcddl.training.evaluate import classification_loss

Iterate = Callable[[Tensor, Tensor], None]  # one step on features and labels
Build = Callable[[nn.Module, World], "Method"]

ALONE = "no communication"
PEERS = {  # torch's own, which end with the same weights
    "SSGD": "DDP",
    "local SGD, H = 4": "PostLocalSGDOptimizer, H = 4",
    "local SGD, H = 16": "PostLocalSGDOptimizer, H = 16",
    "hierarchical, H = 4, 16": "HierarchicalModelAverager",
}


def methods(ranks: int) -> dict[str, Build]:
    """The table, for `ranks` learners; no period is longer than 16 steps."""
    half = ranks // 2
    return {
        ALONE: theirs(lambda model, optimizer: (model, optimizer)),
        "SSGD": ours("ssgd"),
        "DDP": theirs(peers.data_parallel),
        "DPSGD": ours("dpsgd"),
        "DPSGD, delayed": ours("dpsgd", delayed=True),
        "local SGD, H = 4": ours("local_sgd", steps=4),
        "PostLocalSGDOptimizer, H = 4": theirs(partial(peers.periodic, steps=4)),
        "local SGD, H = 16": ours("local_sgd", steps=16),
        "PostLocalSGDOptimizer, H = 16": theirs(partial(peers.periodic, steps=16)),
        "hierarchical, H = 4, 16": ours("local_sgd", steps=4, block_steps=4, block_size=half),
        "HierarchicalModelAverager": theirs(
            partial(peers.hierarchical, steps=4, block_steps=4, block_size=half)
        ),
        "EF-signSGD, H = 4": ours("local_sgd", steps=4, compression="sign"),
        "majority vote": ours("majority_vote", optimizer="sign_sgd"),
    }


@dataclass(frozen=True)
class Method:
    """One learner's way to train."""

    iterate: Iterate
    strategy: dict[str, Any]  # as a recipe has it; torch's own have none, and count no traffic
    traffic: Traffic
    horovod: bool

    @contextmanager
    def ready(self, world: World, features: Tensor, labels: Tensor) -> Iterator[None]:
        """Inside, Horovod runs for those who use it: its thread takes time from all others."""
        if not self.horovod:
            yield
            return
        horovod.start(world, fusion_mib=0)
        self.iterate(features, labels)  # learners tell each other their tensors' names
        yield
        hvd.shutdown()


def ours(name: str, *, optimizer: str = "sgd", **options: Any) -> Build:
    """A strategy with its options as in a recipe."""

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

        return _method(iterate, recipe, strategy.traffic)

    return build


def theirs(build_peer: Callable[[nn.Module, torch.optim.Optimizer], peers.Peer]) -> Build:
    """A model and an optimizer that communicate by themselves, or do not."""

    def build(model: nn.Module, world: World) -> Method:
        peer, optimizer = build_peer(model, _optimizer(model, "sgd"))

        def iterate(features: Tensor, labels: Tensor) -> None:
            optimizer.zero_grad()
            classification_loss(peer(features), labels).backward()
            optimizer.step()

        return _method(iterate, {}, Traffic())

    return build


def _method(iterate: Iterate, strategy: dict[str, Any], traffic: Traffic) -> Method:
    """Stops Horovod where building has started it."""
    started = hvd.is_initialized()
    if started:
        hvd.shutdown()
    return Method(iterate, strategy, traffic, started)


def _optimizer(model: nn.Module, name: str) -> torch.optim.Optimizer:
    choice = From(OPTIMIZERS).choose({"name": name, "momentum": 0.9})
    optimizer: torch.optim.Optimizer = choice.build(OPTIMIZERS, model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    return optimizer
