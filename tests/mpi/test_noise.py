"""Gradient noise under every strategy: one draw for all learners, repeated by a resumed run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.optimizers.noise import GradientNoise, draw
from hpcddl.strategies.base import Strategy
from tests.mpi.dense import gradient, network, vector_of
from tests.mpi.test_strategies import RUNS, SEED, STEPS, all_weights, batch, build, label, rate, run

ETA, GAMMA = 0.04, 0.55


def noisy(case: dict[str, Any], world: World, folder: Path, eta: float = ETA) -> Strategy:
    noise = GradientNoise(eta, GAMMA, SEED)
    return build(case, world, {"momentum": 0.9}, folder, noise=noise)


@pytest.mark.ranks(1, 2, 3, 4)
def test_follows_its_rule(world: World, tmp_path: Path) -> None:
    """SSGD steps along mean_j g_j + N(0, eta / (1 + t)^gamma) (paper B app. C.5)."""
    strategy = build({"name": "ssgd"}, world, {}, tmp_path, noise=GradientNoise(ETA, GAMMA, SEED))
    run(strategy)
    w, like = vector_of(network()), torch.zeros(1, dtype=torch.float64)
    for step in range(STEPS):
        noise = draw(len(w), like, (ETA / (1 + step) ** GAMMA) ** 0.5, SEED, step, 0, 1).numpy()
        mean = np.mean([gradient(w, *batch(step, j)) for j in range(world.size)], axis=0)
        w = w - rate(step) * (mean + noise)
    np.testing.assert_allclose(all_weights(strategy), np.tile(w, (world.size, 1)), atol=1e-13)


@pytest.mark.parametrize("case", RUNS, ids=label)
def test_every_strategy_is_moved_and_resumes(
    case: dict[str, Any], world: World, tmp_path: Path
) -> None:
    """Another end than without noise; the same bits after a stop and a load."""
    whole = noisy(case, world, tmp_path)
    run(whole)
    plain = noisy(case, world, tmp_path, eta=0.0)
    run(plain)
    assert abs(all_weights(whole) - all_weights(plain)).max() > 1e-4
    first = noisy(case, world, tmp_path)
    run(first, last=3)
    saved = tmp_path / f"state-{world.rank}.pt"
    torch.save(first.state_dict(), saved)
    second = noisy(case, world, tmp_path)
    second.load_state_dict(torch.load(saved, weights_only=True))
    run(second, first=3)
    compare = (
        np.testing.assert_allclose if case.get("fusion_mib") else np.testing.assert_array_equal
    )
    compare(all_weights(second), all_weights(whole))


def test_its_variance_decays() -> None:
    """Of many entries, to a few percent of eta / (1 + t)^gamma."""
    for step in (0, 9):
        model = torch.nn.Linear(200, 200)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        GradientNoise(ETA, GAMMA, SEED).add(FlatWeights(model), step)
        drawn = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
        assert drawn.var().item() == pytest.approx(ETA / (1 + step) ** GAMMA, rel=0.03)
