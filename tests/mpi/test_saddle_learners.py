"""The learners of the saddle study, in one process, are the strategies on real ranks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.common.options import Choice
from hpcddl.communication.topology import TOPOLOGIES
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.noise import draw
from hpcddl.reproduce.saddle_learners import RULES, Rules
from hpcddl.reproduce.saddle_problem import Saddle
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.weight_noise import WeightNoise

SADDLE = Saddle(tau=0.2)
RATE, STEPS, SEED, STD = 0.3, 12, 5, 0.1


class Weights(nn.Module):
    """x and y."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))

    def forward(self, p: float, q: float) -> Tensor:
        """The loss of a mini-batch whose mean signs are p and q."""
        x, y = self.w
        s = SADDLE
        own = s.sigma * p * x + s.kappa * q * x * y + s.tau * q * y
        return s.a * x**2 / 2 - s.b * y**2 / 2 + s.c * s.b * y**4 / 4 + own


def ssgd(model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> Strategy:
    return STRATEGIES["ssgd"](model, GradientStep(optimizer), world, SEED)


def ssgd_star(model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> Strategy:
    return WeightNoise(ssgd(model, optimizer, world), STD, "per_learner", SEED)


def dpsgd(model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> Strategy:
    topology = Choice("random_pair", {})
    return STRATEGIES["dpsgd"](model, GradientStep(optimizer), world, SEED, topology=topology)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize(
    ("algorithm", "build"), [("SSGD", ssgd), ("SSGD*", ssgd_star), ("DPSGD", dpsgd)]
)
def test_rules_are_those_of_the_strategies(
    algorithm: str, build: Callable[..., Strategy], world: World
) -> None:
    """W(t) of every learner after every update, from the same mini-batches, pairs and noise."""
    model = Weights()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    strategy = build(model, optimizer, world)
    rule = RULES[algorithm](Rules(SADDLE, RATE))
    weights = np.tile(model.w.detach().numpy(), (1, world.size, 1))
    start = weights.copy()
    topology = TOPOLOGIES["random_pair"](world.size, SEED)
    random = np.random.default_rng(1)
    for step in range(STEPS):
        p, q = random.uniform(-1, 1, (2, 1, world.size))
        optimizer.zero_grad()
        strategy.before_forward()
        model(p[0, world.rank], q[0, world.rank]).backward()
        strategy.update()
        noise = [draw(2, model.w, STD, SEED, step, j + 1).numpy() for j in range(world.size)]
        weights = rule(weights, (p, q), topology(step)[None], np.array(noise)[None])
        np.testing.assert_allclose(model.w.detach(), weights[0, world.rank], rtol=0, atol=1e-13)
    assert np.abs(weights - start).max() > 0.01
