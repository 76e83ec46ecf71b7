"""One training run of figure 2: one algorithm, one seed, on all ranks, in this process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.data import Dataset
from hpcddl.models.mlp import mlp
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.schedules import constant
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy, same_start
from hpcddl.strategies.weight_noise import WeightNoise
from hpcddl.training.diagnostics import Diagnostics, Measurement
from hpcddl.training.evaluate import Evaluation
from hpcddl.training.loop import Log, train
from hpcddl.training.overall import OverallLoss
from hpcddl.training.task import Task

_AT_ONCE = 4096  # samples whose gradient is taken in one pass


@dataclass(frozen=True)
class PanelSetting:
    """What all runs of a panel have in common."""

    rate: float
    global_batch: int
    epochs: int
    every: int  # updates from one measurement to the next
    scale: float  # of the inputs, by which each pixel 0 .. 255 is multiplied


@dataclass(frozen=True)
class Evaluated:
    """The consensus on the test set after `step` updates."""

    step: int
    error: float  # 0 .. 1


@dataclass(frozen=True)
class PanelRun:
    """What one run came to."""

    seed: int
    std: float  # of SSGD*'s noise, else 0
    loss: float  # overall, of the last consensus, in nats
    test_error: float  # the last one, 0 .. 1
    measurements: list[Measurement]
    test_errors: list[Evaluated]


class _Log(Log):
    """Keeps measurements and test errors, and ends a run whose loss is not finite."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self.errors: list[Evaluated] = []
        self.measurements: list[Measurement] = []
        self._steps_per_epoch = steps_per_epoch

    def diagnosis(self, epoch: int, step: int, rate: float, measured: Measurement) -> None:
        self.measurements.append(measured)

    def evaluation(self, epoch: int, result: Evaluation) -> None:
        self.errors.append(Evaluated(epoch * self._steps_per_epoch, 1 - result.accuracy))
        if not math.isfinite(result.loss):
            self.diverged_since = {"epoch": epoch, "reason": f"test loss {result.loss}"}


def run_once(
    world: World,
    train_set: Dataset,
    test_set: Dataset,
    setting: PanelSetting,
    strategy: dict[str, Any],
    *,
    std: float,
    seed: int,
) -> PanelRun:
    """Trains from weights and in an order of data that `seed` draws; the same on every rank.

    Args:
        strategy: as a recipe has it; `std` above 0 adds weight noise, each learner its own.
    """
    torch.manual_seed(seed)
    model = mlp(train_set.shape, train_set.classes, scale=setting.scale)
    same_start(model, world)
    choice = From(STRATEGIES).choose(strategy)
    learner: Strategy = choice.build(STRATEGIES, model, GradientStep(sgd(model)), world, seed)
    if std:
        learner = WeightNoise(learner, std, "per_learner", seed)
    overall = OverallLoss(train_set, 0, seed, _AT_ONCE, world)
    diagnostics = Diagnostics(
        learner, model, overall, every=setting.every, accumulate=1, second_order=False
    )
    task = Task(
        model,
        learner,
        constant(setting.global_batch, setting.epochs, rate=setting.rate),
        train_set,
        test_set,
        epochs=setting.epochs,
        local_batch=setting.global_batch // world.size,
        seed=seed,
        diagnostics=diagnostics,
    )
    log = _Log(task.steps_per_epoch)
    train(task, log)
    with learner.consensus():
        loss, _ = overall.gradient(model)
    return PanelRun(seed, std, loss, log.errors[-1].error, log.measurements, log.errors)
