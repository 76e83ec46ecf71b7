"""Gradient clipping against the dense simulation, in float64."""

from typing import Any

import numpy as np
import pytest

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.weight_noise import WeightNoise
from tests.mpi.dense import (
    Array,
    Gossip,
    Local,
    Optimizer,
    Simulation,
    gradient,
    network,
    vector_of,
)
from tests.mpi.test_strategies import OPTIMIZERS, SEED, STEPS, all_weights, batch, rate, run

CASES: list[dict[str, Any]] = [
    {"name": "ssgd"},
    {"name": "ssgd", "fusion_mib": 64},
    {"name": "dpsgd", "topology": {"name": "ring"}},
    {"name": "dpsgd", "topology": {"name": "random_pair"}},
    {"name": "local_sgd", "steps": 2},
    {"name": "local_sgd", "steps": 2, "after": 100.0},  # all of it mini-batch SGD
]


def limit(case: dict[str, Any], world: World) -> float:
    """A norm that some of the gradients exceed and some do not; a mean of n is smaller."""
    return 0.6 / world.size**0.5 if averages(case) else 0.6


def averages(case: dict[str, Any]) -> bool:
    return case["name"] == "ssgd" or "after" in case


def build(case: dict[str, Any], world: World, options: dict[str, Any]) -> Strategy:
    model = network()
    choice = From(STRATEGIES).choose(case)
    local = GradientStep(sgd(model, **options), clip_norm=limit(case, world))
    strategy: Strategy = choice.build(STRATEGIES, model, local, world, SEED)
    return strategy


def clipped(g: Array, limit: float) -> Array:
    """As torch.nn.utils.clip_grad_norm_ does it, its 1e-6 included."""
    return g * min(1.0, limit / (np.linalg.norm(g) + 1e-6))


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in_weight_noise"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_clips_what_is_stepped(case: dict[str, Any], wrapped: bool, world: World) -> None:
    """Where gradients are averaged their mean is clipped, elsewhere each learner's own."""
    options = OPTIMIZERS["nesterov"]
    strategy = inner = build(case, world, options)
    if wrapped:
        strategy = WeightNoise(inner, 0.0, "per_learner", SEED)
    run(strategy)
    n = world.size
    simulation = Simulation(
        np.tile(vector_of(network()), (n, 1)),
        [Optimizer(**options) for _ in range(n)],
        Gossip(inner.topology) if case["name"] == "dpsgd" else None,
        Local(steps=lambda step: 2),
    )
    rule = simulation.ssgd if averages(case) else getattr(simulation, case["name"])
    norms = []
    for step in range(STEPS):
        gradients = np.array([gradient(simulation.weights[j], *batch(step, j)) for j in range(n)])
        if averages(case):
            gradients = gradients.mean(0, keepdims=True)
        norms.extend(np.linalg.norm(gradients, axis=1))
        gradients = np.array([clipped(g, limit(case, world)) for g in gradients])
        rule(step, rate(step), gradients)
    assert min(norms) < limit(case, world) < max(norms)
    np.testing.assert_allclose(all_weights(strategy), simulation.weights, rtol=0, atol=1e-13)
