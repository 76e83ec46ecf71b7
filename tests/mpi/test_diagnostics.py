"""What is measured of single updates, on real ranks in float64, and that it leaves no trace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpcddl.cluster.world import World
from hpcddl.data.sampler import contiguous_batches, epoch_permutation
from hpcddl.strategies.base import Strategy
from hpcddl.strategies.weight_noise import WeightNoise
from hpcddl.training.diagnostics import Diagnostics, Measurement
from hpcddl.training.overall import OverallLoss
from tests.mpi.dense import FEATURES, gradient, network, samples, vector_of
from tests.mpi.test_strategies import (
    CASES,
    SEED,
    STEPS,
    all_weights,
    batch,
    build,
    label,
    learner,
    one_step,
    rate,
    run,
)

SAMPLES, EVERY = 23, 2
DPSGD = {"name": "dpsgd", "topology": {"name": "ring"}}
DELAYED = {**DPSGD, "delayed": True}
ONE_OF_EACH = [*(cases[0] for cases in CASES.values()), DELAYED]


class InMemory:
    """The samples of the dense simulation as a data set."""

    contiguous = False

    def __init__(self, x: NDArray, y: NDArray) -> None:
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def __len__(self) -> int:
        return len(self.y)

    def in_order(self, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
        return contiguous_batches(len(self), rank=rank, ranks=ranks, batch=batch)

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        return torch.empty(batch, FEATURES, dtype=torch.float64), torch.empty(batch, dtype=int)

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        features_out[:], labels_out[:] = self.x[indices], self.y[indices]


def diagnosing(
    strategy: Strategy, every: int = EVERY, second_order: bool = False, accumulate: int = 1
) -> Diagnostics:
    """With the overall loss of SAMPLES samples."""
    overall = OverallLoss(InMemory(*samples(SAMPLES)), 0, SEED, 4, strategy.world)
    return Diagnostics(
        *(strategy, strategy.model, overall),
        every=every,
        accumulate=accumulate,
        second_order=second_order,
    )


def watched_step(
    strategy: Strategy, diagnostics: Diagnostics, x: NDArray, y: NDArray, step: int
) -> Measurement | None:
    diagnostics.before(torch.from_numpy(x), torch.from_numpy(y))
    one_step(strategy, x, y, step)
    return diagnostics.after(rate(step))


def watched_run(strategy: Strategy, diagnostics: Diagnostics) -> list[Measurement]:
    found = (
        watched_step(strategy, diagnostics, *batch(step, strategy.world.rank), step)
        for step in range(STEPS)
    )
    return [measured for measured in found if measured]


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("some", [0, 9])
def test_the_overall_gradient_is_that_of_all_samples(some: int, world: World) -> None:
    """g = grad L(w), whatever the number of ranks and the batches; p.grad stays as it was."""
    x, y = samples(SAMPLES, seed=1)
    model = network()
    loss, g = OverallLoss(InMemory(x, y), some, SEED, 4, world).gradient(model)
    if some:
        chosen = epoch_permutation(SAMPLES, SEED, 0)[:some]
        x, y = x[chosen], y[chosen]
    np.testing.assert_allclose(g, gradient(vector_of(model), x, y), atol=1e-15)
    with torch.no_grad():
        expected = cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
    assert loss == pytest.approx(expected.item(), rel=1e-14)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=label)
def test_measuring_leaves_no_trace(case: dict[str, Any], world: World, tmp_path: Path) -> None:
    """Every strategy ends with the same weights and momentum, bit for bit, measured or not."""
    plain, measured = (build(case, world, {"momentum": 0.9}, tmp_path) for _ in range(2))
    run(plain)
    found = watched_run(measured, diagnosing(measured, second_order=True))
    assert [m.step for m in found] == list(range(0, STEPS, EVERY))
    np.testing.assert_array_equal(all_weights(measured), all_weights(plain))
    assert_same(measured.state_dict(), plain.state_dict())


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("case", [{"name": "ssgd"}, DPSGD, ONE_OF_EACH[2]], ids=label)
def test_statistics_and_random_streams_stay(case: dict[str, Any], world: World) -> None:
    """Batch norm's running statistics and dropout's masks are those of a run without."""

    def fresh() -> Strategy:
        torch.manual_seed(5)
        layers = nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)
        strategy = learner(nn.Sequential(*layers).double(), case, world, {"momentum": 0.9})
        torch.manual_seed(world.rank)
        return strategy

    plain = fresh()
    run(plain)
    after = torch.get_rng_state()
    measured = fresh()
    watched_run(measured, diagnosing(measured, every=1, second_order=True))
    assert_same(measured.state_dict(), plain.state_dict())
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("std", [0.0, 0.1])
@pytest.mark.parametrize("case", [{"name": "ssgd"}, DPSGD], ids=label)
def test_measures_the_definition(
    case: dict[str, Any], std: float, world: World, tmp_path: Path
) -> None:
    """alpha_e = alpha g_a.g / |g|^2, g at w_a, g_a of each learner's own (noisy) weights."""
    x, y = samples(SAMPLES)
    strategy = build(case, world, {}, tmp_path)
    if std:
        strategy = WeightNoise(strategy, std, "per_learner", SEED)
    diagnostics = diagnosing(strategy, every=1, accumulate=2)
    for step in range(STEPS):
        own = all_weights(strategy)
        average = own.mean(0)
        measured = watched_step(strategy, diagnostics, *batch(step, world.rank), step)
        after = all_weights(strategy).mean(0)
        assert measured is not None
        alpha = rate(step)
        g, g_a = gradient(average, x, y), (average - after) / alpha
        alpha_e = alpha * (g_a @ g) / (g @ g)
        assert measured.step == step
        assert measured.effective_rate == pytest.approx(alpha_e, rel=1e-11)
        eta = alpha_e * g - alpha * g_a
        assert measured.noise == pytest.approx(eta @ eta, rel=1e-10)
        assert measured.gradient_norm == pytest.approx(np.sqrt(g @ g), rel=1e-12)
        assert measured.mean_gradient_norm == pytest.approx(np.sqrt(g_a @ g_a), rel=1e-11)
        # alpha_e^2 |g|^2 + Delta = alpha^2 |g_a|^2
        along = (measured.effective_rate * measured.gradient_norm) ** 2
        stepped = (alpha * measured.mean_gradient_norm) ** 2
        assert along + measured.noise == pytest.approx(stepped, rel=1e-12)
        distance = ((own - average) ** 2).sum(1).mean()
        assert measured.consensus_distance == pytest.approx(distance, rel=1e-12, abs=1e-30)
        batches = [batch(step, rank) for rank in range(world.size)]
        change = np.mean(
            [gradient(w, *b) - gradient(average, *b) for w, b in zip(own, batches, strict=True)], 0
        )
        delta2 = alpha**2 * (change @ change)
        assert measured.delta2 == pytest.approx(delta2, rel=1e-9, abs=1e-28)
        assert (measured.delta2_first_order, measured.delta2_covariance) == (None, None)
    gap = 1.0 if case["name"] == "ssgd" else measured.spectral_gap
    assert measured.spectral_gap == gap
    assert measured.spectral_gap is not None


def hessian(model: nn.Module, w: NDArray, x: NDArray, y: NDArray) -> NDArray:
    """(d, d) of the mean loss at w, row by row."""
    sizes = [p.numel() for p in model.parameters()]

    def loss(flat: Tensor) -> Tensor:
        pieces = zip(model.named_parameters(), flat.split(sizes), strict=True)
        weights = {name: piece.view(p.shape) for (name, p), piece in pieces}
        scores = torch.func.functional_call(model, weights, torch.from_numpy(x))
        return cross_entropy(scores, torch.from_numpy(y))

    dense: Tensor = torch.autograd.functional.hessian(loss, torch.from_numpy(w))
    return dense.numpy()


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("apart", [1e-1, 1e-4])
def test_delta2_in_its_three_forms(apart: float, world: World, tmp_path: Path) -> None:
    """Against dense Hessians; the first order meets the direct form as the learners come close."""
    x, y = samples(SAMPLES)
    strategy = build(DPSGD, world, {}, tmp_path)
    random = np.random.default_rng(world.rank)
    with torch.no_grad():
        for p in strategy.model.parameters():
            p += apart * torch.from_numpy(random.normal(size=p.shape))
    own = all_weights(strategy)
    average = own.mean(0)
    diagnostics = diagnosing(strategy, every=1, second_order=True, accumulate=2)
    measured = watched_step(strategy, diagnostics, *batch(0, world.rank), 0)
    assert measured is not None
    pairs = [(w - average, batch(0, rank)) for rank, w in enumerate(own)]
    products = [hessian(strategy.model, average, *b) @ dw for dw, b in pairs]
    mean = np.mean(products, 0)
    expected = rate(0) ** 2 * (mean @ mean)
    assert measured.delta2_first_order == pytest.approx(expected, rel=1e-10, abs=1e-40)
    whole = hessian(strategy.model, average, x, y)
    covariance = sum(np.outer(dw, dw) for dw, _ in pairs) / world.size**2
    trace = rate(0) ** 2 * np.trace(whole @ covariance @ whole)
    assert measured.delta2_covariance == pytest.approx(trace, rel=1e-10, abs=1e-40)
    if world.size > 1:
        assert measured.delta2_first_order == pytest.approx(measured.delta2, rel=20 * apart)


@pytest.mark.ranks(1, 3)
def test_ssgd_with_the_full_batch_has_no_noise(world: World, tmp_path: Path) -> None:
    """nB = N: alpha_e = alpha and Delta = 0."""
    parts = [samples(5, seed=j) for j in range(world.size)]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    strategy = build({"name": "ssgd"}, world, {}, tmp_path)
    overall = OverallLoss(InMemory(x, y), 0, SEED, 4, world)
    diagnostics = Diagnostics(
        strategy, strategy.model, overall, every=1, accumulate=1, second_order=False
    )
    for step in range(STEPS):
        measured = watched_step(strategy, diagnostics, *parts[world.rank], step)
        assert measured is not None
        assert measured.effective_rate == pytest.approx(rate(step), rel=1e-13)
        assert measured.noise < 1e-28
        assert measured.delta2 == measured.consensus_distance == 0


def assert_same(found: Any, expected: Any) -> None:
    """Bit for bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected or (found != found and expected != expected)
