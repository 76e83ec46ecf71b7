"""Micro-batches give the gradient of their batch under every strategy, in float64."""

from typing import Any

import numpy as np
import pytest
import torch

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.training.accumulate import backward
from tests.mpi.dense import network
from tests.mpi.test_strategies import OPTIMIZERS, SEED, STEPS, all_weights, batch, rate

CASES: list[dict[str, Any]] = [
    {"name": "ssgd"},
    {"name": "ssgd", "fusion_mib": 64},
    {"name": "dpsgd", "topology": {"name": "ring"}},
    {"name": "dpsgd", "topology": {"name": "random_pair"}},
    {"name": "local_sgd", "steps": 2},
    {"name": "local_sgd", "steps": 2, "after": 100.0},
]


def trained(case: dict[str, Any], parts: int, world: World) -> np.ndarray:
    """The learners' weights (n, d) after a run whose batches go in `parts` micro-batches."""
    model = network()
    choice = From(STRATEGIES).choose(case)
    # Clipping is not linear: it sees whether the whole gradient is there.
    local = GradientStep(sgd(model, **OPTIMIZERS["nesterov"]), clip_norm=0.5)
    strategy = choice.build(STRATEGIES, model, local, world, SEED)
    for step in range(STEPS):
        for group in strategy.optimizer.param_groups:
            group["lr"] = rate(step)
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        x, y = map(torch.from_numpy, batch(step, world.rank))
        backward(model, x, y, parts)
        strategy.update()
    return all_weights(strategy)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_micro_batches_are_their_batch(case: dict[str, Any], parts: int, world: World) -> None:
    """For a batch of four in 2 equal, 3 unequal and 4 single parts."""
    whole = trained(case, 1, world)
    np.testing.assert_allclose(trained(case, parts, world), whole, rtol=0, atol=1e-13)
