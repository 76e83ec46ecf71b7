"""alpha_e and Delta measured while strategies train, on real ranks in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.analysis.gradient import overall_gradient
from hpcddl.data.prefetch import Prefetcher
from hpcddl.reproduce.fig2_observed import Observed
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.weight_noise import WeightNoise
from hpcddl.world import World
from tests.mpi.dense import FEATURES, gradient, network, samples, vector_of
from tests.mpi.test_strategies import (
    CASES,
    SEED,
    STEPS,
    all_weights,
    batch,
    build,
    label,
    one_step,
    rate,
    run,
)

SAMPLES, EVERY = 23, 2
DELAYED = {"name": "dpsgd", "topology": {"name": "ring"}, "delayed": True}
ONE_OF_EACH = [*(cases[0] for cases in CASES.values()), DELAYED]


class InMemory:
    """The samples of the dense simulation as a prefetcher's source."""

    def __init__(self, x: NDArray, y: NDArray) -> None:
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        return torch.empty(batch, FEATURES, dtype=torch.float64), torch.empty(batch, dtype=int)

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        features_out[:], labels_out[:] = self.x[indices], self.y[indices]


def observed(inner: Strategy, x: NDArray, y: NDArray, every: int = EVERY) -> Observed:
    loader = Prefetcher(InMemory(x, y), "cpu", depth=0)
    return Observed(
        inner, lambda: overall_gradient(inner.model, loader, len(y), 4, inner.world), every
    )


def test_the_overall_gradient_is_that_of_all_samples(world: World) -> None:
    """g = grad L(w), whatever the number of ranks and the batches; p.grad stays as it was."""
    x, y = samples(SAMPLES, seed=1)
    model = network()
    loader = Prefetcher(InMemory(x, y), "cpu", depth=0)
    loss, g = overall_gradient(model, loader, SAMPLES, 4, world)
    np.testing.assert_allclose(g, gradient(vector_of(model), x, y), atol=1e-15)
    with torch.no_grad():
        scores = model(torch.from_numpy(x))
    expected = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y))
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=label)
def test_measuring_leaves_no_trace(case: dict[str, Any], world: World, tmp_path: Path) -> None:
    """Every strategy ends with the same weights, bit for bit, measured or not."""
    plain = build(case, world, {"momentum": 0.9}, tmp_path)
    run(plain)
    measured = observed(build(case, world, {"momentum": 0.9}, tmp_path), *samples(SAMPLES))
    run(measured)
    assert [m.step for m in measured.measurements] == list(range(0, STEPS, EVERY))
    np.testing.assert_array_equal(all_weights(measured), all_weights(plain))


@pytest.mark.parametrize("std", [0.0, 0.1])
@pytest.mark.parametrize(
    "case", [{"name": "ssgd"}, {"name": "dpsgd", "topology": {"name": "ring"}}], ids=label
)
def test_measures_the_definition(
    case: dict[str, Any], std: float, world: World, tmp_path: Path
) -> None:
    """alpha_e = alpha g_a.g / |g|^2, g at w_a, g_a of each learner's own (noisy) weights."""
    x, y = samples(SAMPLES)
    inner = build(case, world, {}, tmp_path)
    if std:
        inner = WeightNoise(inner, std, "per_learner", SEED)
    strategy = observed(inner, x, y, every=1)
    for step in range(STEPS):
        before = all_weights(strategy).mean(0)
        one_step(strategy, *batch(step, world.rank), step)
        after = all_weights(strategy).mean(0)
        g, g_a = gradient(before, x, y), (before - after) / rate(step)
        measured = strategy.measurements[-1]
        alpha_e = rate(step) * (g_a @ g) / (g @ g)
        assert measured.step == step
        assert measured.effective_rate == pytest.approx(alpha_e, rel=1e-11)
        eta = alpha_e * g - rate(step) * g_a
        assert measured.noise == pytest.approx(eta @ eta, rel=1e-10)


def test_ssgd_with_the_full_batch_has_no_noise(world: World, tmp_path: Path) -> None:
    """nB = N: alpha_e = alpha and Delta = 0."""
    parts = [samples(5, seed=j) for j in range(world.size)]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    strategy = observed(build({"name": "ssgd"}, world, {}, tmp_path), x, y, every=1)
    for step in range(STEPS):
        one_step(strategy, *parts[world.rank], step)
        measured = strategy.measurements[-1]
        assert measured.effective_rate == pytest.approx(rate(step), rel=1e-13)
        assert measured.noise < 1e-28


def test_no_weight_noise_measures_nothing_else(world: World, tmp_path: Path) -> None:
    """sigma = 0: SSGD* measures what SSGD does."""
    ssgd, star = (build({"name": "ssgd"}, world, {}, tmp_path) for _ in range(2))
    strategies = [
        observed(inner, *samples(SAMPLES))
        for inner in (ssgd, WeightNoise(star, 0.0, "per_learner", SEED))
    ]
    for strategy in strategies:
        run(strategy)
    one, other = (np.array(strategy.measurements) for strategy in strategies)
    np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-28)
