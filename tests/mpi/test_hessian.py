"""Products of the Hessian on every number of ranks, against the dense one, in float64."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcddl.analysis.eigenvalues import extreme_eigenvalues
from hpcddl.analysis.product_count import ProductCount
from hpcddl.analysis.rank_zero import Array, Product, on_rank_zero
from hpcddl.analysis.sample_loss import Sample, batch_statistics
from hpcddl.analysis.shared_hessian import SharedHessian, batches_of_rank
from hpcddl.analysis.spectral_density import quadrature, rademacher
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.models import MODELS
from hpcddl.training.evaluate import classification_loss


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def mlp() -> nn.Module:
    return MODELS["mlp"]((5,), 3, hidden=[6, 4])


def bilstm() -> nn.Module:
    return MODELS["bilstm"]((2, 2), 3, layers=2, cells=1, bottleneck=2)


def language_model() -> nn.Module:
    """Its output layer's weights are the embedding's."""
    return MODELS["lstm_lm"]((3,), WORDS, layers=1, cells=2)


WORDS = 4


class Unused(nn.Module):
    """A parameter that the loss does not know, another that it is constant in."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)
        self.shared = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.used(x) + self.shared  # a softmax does not see it
        return scores


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {
    "mlp": (mlp, (5,), False),
    "convolutions": (convolutions, (2, 4, 4), False),
    "convolutions, batch statistics": (convolutions, (2, 4, 4), True),
    "bilstm": (bilstm, (2, 2), False),
    "lstm_lm": (language_model, (3,), False),
    "unused parameters": (Unused, (5,), False),
}


def network_and_sample(name: str, count: int = 14) -> tuple[nn.Module, Sample]:
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(4)
    network = make().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    features = torch.randn(count, *shape, dtype=torch.float64)
    if name == "lstm_lm":
        features = torch.randint(WORDS, (count, *shape))
    with torch.no_grad():
        scores = network(features)
    return network, Sample(features, torch.randint(scores.shape[-1], scores.shape[:-1]), count)


def dense(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Array:
    """(d, d), row by row, of the mean loss."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    predictions = sum(y.numel() for _, y in batches)
    loss = torch.zeros((), dtype=torch.float64)
    for x, y in batches:
        loss = loss + classification_loss(network(x), y) * (y.numel() / predictions)
    options: dict[str, Any] = {"create_graph": True, "materialize_grads": True}
    gradient = torch.autograd.grad(loss, parameters, **options)
    rows = []
    for element in torch.cat([g.flatten() for g in gradient]):
        row = torch.autograd.grad(element, parameters, **options)
        rows.append(torch.cat([r.detach().flatten() for r in row]).numpy())
    return np.stack(rows)


class Case:
    """A network, its dense Hessian, and the products that the ranks make together."""

    def __init__(self, name: str, batch: int, world: World, memory: float = 0) -> None:
        self.network, sample = network_and_sample(name)
        self.own_statistics = NETWORKS[name][2]
        self.dense = dense_of(name, batch)
        with self.mode():
            mine = batches_of_rank(sample, batch, world.rank, world.size, self.own_statistics)
            count = ProductCount("", shown=False)
            predictions = sample.labels.numel()
            self.hessian = SharedHessian(self.network, mine, predictions, world, count, memory)
        self.size = len(self.dense)

    def mode(self) -> AbstractContextManager[None]:
        return batch_statistics(self.network) if self.own_statistics else nullcontext()

    def solve(self, work: Callable[[Product], Any]) -> Any:
        with self.mode():
            return self.hessian.solve("", work)


@lru_cache
def dense_of(name: str, batch: int) -> Array:
    network, sample = network_and_sample(name)
    own = NETWORKS[name][2]
    with batch_statistics(network) if own else nullcontext():
        everything = batches_of_rank(sample, batch, 0, 1, own)
        return dense(network, everything if own else [(sample.features, sample.labels)])


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("batch", [5, 100])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_the_dense_hessian_s(name: str, batch: int, world: World) -> None:
    """With the gradient's graph kept (one batch) or not, statistics of a batch included."""
    case = Case(name, batch, world)
    vectors = np.random.default_rng(0).standard_normal((5, case.size))
    found = case.solve(lambda product: np.stack([product(v) for v in vectors]))
    np.testing.assert_allclose(found, vectors @ case.dense, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(case.dense, case.dense.T, rtol=1e-9, atol=1e-13)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("name", NETWORKS)
def test_extreme_eigenvalues_are_numpy_s(name: str, world: World) -> None:
    case = Case(name, 5, world)
    largest, least = case.solve(lambda p: extreme_eigenvalues(p, case.size, 4, 1e-10, seed=1))
    all_of_them = np.linalg.eigvalsh(case.dense)
    np.testing.assert_allclose(largest, all_of_them[:-5:-1], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(least, all_of_them[0], rtol=1e-9, atol=1e-10)


@pytest.mark.ranks(1, 3)
@pytest.mark.parametrize("name", ["mlp", "bilstm", "convolutions, batch statistics"])
def test_a_probe_s_moments_are_those_of_the_dense_hessian(name: str, world: World) -> None:
    """sum_i tau_i theta_i^p = v^T H^p v / d up to p = 2m - 1."""
    case = Case(name, 5, world)
    probe = rademacher(case.size, seed=2, probe=0)
    found = case.solve(lambda product: quadrature(product, probe, 4))
    power = probe
    for p in range(8):
        assert found.moment(p) == pytest.approx(probe @ power / case.size, rel=1e-9), p
        power = case.dense @ power


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_the_mean_loss_s(name: str, world: World) -> None:
    case = Case(name, 5, world)
    with case.mode():
        found = case.hessian.gradient()
        _, sample = network_and_sample(name)
        loss = torch.zeros((), dtype=torch.float64)
        for x, y in batches_of_rank(sample, 5, 0, 1, whole=True):
            loss = loss + classification_loss(case.network(x), y) * (
                y.numel() / sample.labels.numel()
            )
    loss.backward()
    zeros = (torch.zeros_like(p) if p.grad is None else p.grad for p in case.network.parameters())
    expected = torch.cat([g.flatten() for g in zeros])
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def test_products_leave_no_trace(world: World) -> None:
    """Neither gradients nor statistics nor weights change."""
    case = Case("convolutions, batch statistics", 5, world)
    before = {name: value.clone() for name, value in case.network.state_dict().items()}
    case.solve(lambda product: product(np.ones(case.size)))
    assert all(p.grad is None for p in case.network.parameters())
    for name, value in case.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_rank_zero_s_complaint_is_everyone_s(world: World) -> None:
    def solve(product: Product) -> None:
        product(np.ones(3))
        raise UserError("--tolerance")

    with pytest.raises(UserError, match="--tolerance"):
        on_rank_zero(solve, lambda vector: vector.copy(), 3, world)


@pytest.mark.ranks(1, 2, 3, 4)
def test_shares_make_up_the_sample(world: World) -> None:
    """Each sample once; batches whose statistics count are those of one rank."""
    features = torch.arange(23)
    sample = Sample(features, features, 23)
    for whole in (True, False):
        mine = batches_of_rank(sample, 4, world.rank, world.size, whole)
        parts = [part for share in world.comm.allgather(mine) for part, _ in share]
        assert sorted(torch.cat(parts).tolist()) == list(range(23))
        assert max(map(len, parts)) <= 4
        if whole:
            alone = [part.tolist() for part, _ in batches_of_rank(sample, 4, 0, 1, whole)]
            assert sorted(part.tolist() for part in parts) == sorted(alone)
        else:
            assert mine, "a rank without work"
