"""What is not finite in any learner's state is named on all, before it reaches a checkpoint."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpcddl import Learner, UserError
from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.own_loop import learner as learner_module
from hpcddl.run.finite_state import not_finite
from hpcddl.run.resume import learner_state
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy

CASES: dict[str, dict[str, Any]] = {
    "ssgd": {"name": "ssgd"},
    "delayed": {"name": "dpsgd", "topology": "ring", "delayed": True},
    "local": {"name": "local_sgd", "steps": 2, "momentum": 0.5},
    "signs": {"name": "local_sgd", "steps": 1, "compression": "sign"},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model.register_buffer("mask", torch.full((2,), -torch.inf))
    return model


def trained(case: dict[str, Any], world: World) -> Strategy:
    model = network()
    choice = From(STRATEGIES).choose(case)
    local = GradientStep(sgd(model, momentum=0.9))
    strategy: Strategy = choice.build(STRATEGIES, model, local, world, 0)
    for step in range(3):
        strategy.optimizer.zero_grad()
        strategy.epoch = float(step)
        strategy.before_forward()
        model(torch.randn(6, 5)).square().mean().backward()
        strategy.update()
    return strategy


def fault(strategy: Strategy) -> str | None:
    return not_finite(strategy.model, learner_state(strategy), strategy.world)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_part_of_a_learner_counts(case: dict[str, Any], world: World) -> None:
    """Weights, running statistics, momentum; NaN and infinity; of one learner for all."""
    strategy = trained(case, world)
    last = world.size - 1
    assert fault(strategy) is None  # the mask is infinite on purpose
    model: Any = strategy.model
    momentum = strategy.optimizer.state[model[2].weight]["momentum_buffer"]
    for tensor, value, name in (
        (model[0].weight, torch.nan, "model.0.weight"),
        (model[1].running_var, torch.inf, "model.1.running_var"),
        (momentum, -torch.inf, r"optimizer.state.\d.momentum_buffer"),
        (model.mask, torch.nan, "model.mask"),
    ):
        before = tensor.detach().clone()
        if world.rank == last:
            tensor.detach().view(-1)[-1] = value
        said = fault(strategy)
        assert said is not None
        assert re.fullmatch(f"{name} of learner {last} is not finite", said)
        tensor.detach().copy_(before)
    assert fault(strategy) is None


@pytest.mark.ranks(3)
def test_a_loop_of_one_s_own_keeps_its_good_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_module, "init", lambda: world)
    model = network()
    learner = Learner(model, lambda ps: torch.optim.AdamW(ps, lr=0.01), "dpsgd", topology="ring")
    for step in range(2):
        with learner.step():
            model(torch.randn(6, 5)).square().mean().backward()
        if step:
            break
        learner.save(tmp_path, keep=1)
    (good,) = (tmp_path / "checkpoints").iterdir()
    if world.rank == 1:
        model[0].weight.detach()[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"model.0.weight of learner 1 is not finite"):
        learner.save(tmp_path, keep=1)
    assert list((tmp_path / "checkpoints").iterdir()) == [good]
