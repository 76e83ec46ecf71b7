"""A loss scale under every way of agreeing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from hpcddl.training.accumulate import backward
from hpcddl.training.autocast import Autocast
from tests.mpi.dense import samples
from tests.mpi.test_strategies import all_weights

CASES: list[dict[str, Any]] = [
    {"name": "ssgd"},
    {"name": "dpsgd", "topology": {"name": "ring"}},
    {"name": "local_sgd", "steps": 3},
    {"name": "local_sgd", "steps": 3, "after": 5},
]
STEPS, AGREE_EVERY = 60, 4


def build(case: dict[str, Any], world: World, start: float) -> Strategy:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
    local = GradientStep(sgd(model, momentum=0.5), loss_scale=LossScale(start))
    strategy: Strategy = From(STRATEGIES).choose(case).build(STRATEGIES, model, local, world, 0)
    for group in strategy.optimizer.param_groups:
        group["lr"] = 0.4
    return strategy


def one_step(strategy: Strategy, step: int) -> float:
    strategy.optimizer.zero_grad()
    strategy.epoch = float(step)
    strategy.before_forward()
    x = torch.from_numpy(samples(8, seed=100 * step + strategy.world.rank)[0]).float()
    y = x[:, :3].argmax(1)
    loss = backward(Autocast(strategy.model, torch.float16), x, y, 1, strategy.loss_scale)
    strategy.update()
    return loss.item()


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_starts_with_skipped_steps_and_learns(case: dict[str, Any], world: World) -> None:
    """From far too large a scale: no weight moves at first, no loss is infinite, all end alike."""
    strategy = build(case, world, 2.0**30)
    scale = strategy.loss_scale
    assert scale is not None
    first = all_weights(strategy)
    losses = []
    for step in range(STEPS):
        losses.append(one_step(strategy, step))
        if step == 0:
            # A ring of three rounds the mean of three equal weights.
            np.testing.assert_allclose(all_weights(strategy), first, rtol=0, atol=1e-7)
        if case["name"] == "ssgd":
            assert len(set(world.comm.allgather(scale.value))) == 1
            weights = all_weights(strategy)
            assert (weights == weights[0]).all()
        if step % AGREE_EVERY == 0:
            scale.agree(world.comm)
    scale.agree(world.comm)
    assert world.comm.allgather(scale.state_dict()) == [scale.state_dict()] * world.size
    assert 2.0**8 < scale.value < 2.0**30
    assert np.isfinite(losses).all()
    assert (all_weights(strategy) != first).any(axis=1).all()
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


@pytest.mark.ranks(2, 3)
def test_agreement_is_on_the_least(world: World) -> None:
    """Of the scales, and of the steps since they changed: from there all double at one step."""
    scale = LossScale(2.0 ** (10 + world.rank))
    scale.good = 1000 - world.rank
    scale.agree(world.comm)
    assert scale.state_dict() == {"value": 1024.0, "good": 1001 - world.size}


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case["name"])
def test_one_learners_overflow(case: dict[str, Any], world: World) -> None:
    """It skips its own step and halves its own scale; in SSGD the mean overflows, so all do."""
    strategy = build(case, world, 2.0**10)
    one_step(strategy, 0)
    before = all_weights(strategy)
    if world.rank == 0:
        # Also what Horovod averages, which backward has handed over by the time it returns.
        strategy.model[2].bias.register_hook(lambda gradient: gradient * float("inf"))
    one_step(strategy, 1)
    after = all_weights(strategy)
    values = world.comm.allgather(strategy.loss_scale.value)  # type: ignore[union-attr]
    if case["name"] == "ssgd":
        np.testing.assert_array_equal(after, before)
        assert values == [2.0**9] * world.size
        return
    assert values == [2.0**9] + [2.0**10] * (world.size - 1)
    assert np.isfinite(after).all()
    if case["name"] == "local_sgd":  # no average at the second step of three
        np.testing.assert_array_equal(after[0], before[0])
        assert (after[1:] != before[1:]).any(axis=1).all()
