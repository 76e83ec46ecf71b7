"""LARS under SSGD and DPSGD against the dense simulation, in float64."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.lars import lars
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from tests.mpi.dense import Array, Gossip, Simulation, gradient, network, vector_of
from tests.mpi.test_strategies import SEED, STEPS, all_weights, batch, rate, run

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "vectors": {"momentum": 0.9, "weight_decay": 0.01, "scale_vectors": True},
}
CASES: list[dict[str, Any]] = [
    {"name": "ssgd"},
    {"name": "dpsgd", "topology": {"name": "ring"}},
    {"name": "dpsgd", "topology": {"name": "random_pair"}},
]


@dataclass
class Reference:
    """u_j of one learner: You et al. (2017), layer by layer, the rate outside."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    scale_vectors: bool = False
    trust: float = 0.02
    buffer: Array | float = field(default=0.0)

    def direction(self, w: Array, g: Array) -> Array:
        shapes = [p.shape for p in network().parameters()]
        cuts = np.cumsum([s.numel() for s in shapes])[:-1]
        change = []
        for shape, weights, slope in zip(shapes, np.split(w, cuts), np.split(g, cuts), strict=True):
            size = np.linalg.norm(weights)
            scale = self.trust * size / (np.linalg.norm(slope) + self.weight_decay * size)
            if len(shape) == 1 and not self.scale_vectors:
                scale = 1.0
            change.append(scale * (slope + self.weight_decay * weights))
        u = np.concatenate(change)
        self.buffer = self.momentum * self.buffer + u
        return u + self.momentum * self.buffer if self.nesterov else np.asarray(self.buffer)


def build(case: dict[str, Any], world: World, options: dict[str, Any]) -> Strategy:
    model = network()
    optimizer = lars(model, trust=Reference.trust, **options)
    choice = From(STRATEGIES).choose(case)
    strategy: Strategy = choice.build(STRATEGIES, model, GradientStep(optimizer), world, SEED)
    return strategy


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_agrees_with_the_dense_simulation(
    case: dict[str, Any], options: dict[str, Any], world: World
) -> None:
    """SSGD scales by the averaged gradient's norm, DPSGD by its own at w_j(t), before mixing."""
    strategy = build(case, world, options)
    run(strategy)
    n = world.size
    simulation = Simulation(
        np.tile(vector_of(network()), (n, 1)),
        [Reference(**options) for _ in range(n)],  # type: ignore[misc]
        Gossip(strategy.topology) if case["name"] == "dpsgd" else None,
    )
    for step in range(STEPS):
        gradients = np.array([gradient(simulation.weights[j], *batch(step, j)) for j in range(n)])
        getattr(simulation, case["name"])(step, rate(step), gradients)
    np.testing.assert_allclose(all_weights(strategy), simulation.weights, rtol=0, atol=1e-13)


@pytest.mark.ranks(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_resumes_bit_for_bit(case: dict[str, Any], world: World) -> None:
    whole, first, second = (build(case, world, OPTIONS["nesterov"]) for _ in range(3))
    run(whole)
    run(first, last=3)
    second.load_state_dict(first.state_dict())
    run(second, first=3)
    np.testing.assert_array_equal(all_weights(second), all_weights(whole))
