"""The Hessian's forms of Delta2, on quadratics and on a network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcddl.common.flat import FlatWeights
from hpcddl.training.delta2 import covariance_form, first_order
from hpcddl.training.hessian import Hessian

RATE, LEARNERS, SIZE = 0.3, 4, 6


def quadratics() -> tuple[Tensor, Tensor]:
    """H_j (n, d, d) and dw_j (n, d), which sum to 0."""
    drawn = torch.Generator().manual_seed(1)
    a = torch.randn(LEARNERS, SIZE, SIZE, generator=drawn, dtype=torch.float64)
    dw = torch.randn(LEARNERS, SIZE, generator=drawn, dtype=torch.float64)
    return a + a.mT, dw - dw.mean(0)


def test_first_order_is_direct_on_quadratics() -> None:
    """g_j(w_j) - g_j(w_a) = H_j dw_j."""
    hessians, dw = quadratics()
    w = torch.ones(SIZE, dtype=torch.float64)
    moved = torch.stack([h @ (w + d) - h @ w for h, d in zip(hessians, dw, strict=True)])
    direct = RATE**2 * float(moved.mean(0).square().sum())
    mean = torch.einsum("jkl,jl->k", hessians, dw) / LEARNERS
    assert first_order(RATE, mean) == pytest.approx(direct, rel=1e-12)


def test_covariance_form_is_the_paper_s_trace() -> None:
    """alpha^2 sum_{k,l,l'} H_kl H_kl' C_ll', C = n^-2 sum_j dw_j dw_j^T (paper A eq. 4)."""
    hessians, dw = quadratics()
    h = hessians[0]
    covariance = dw.mT @ dw / LEARNERS**2
    expected = RATE**2 * float(torch.einsum("kl,km,lm->", h, h, covariance))
    assert covariance_form(RATE, (h @ d for d in dw)) == pytest.approx(expected, rel=1e-12)
    # With one Hessian for all, the cross terms that it leaves out cancel it.
    assert first_order(RATE, (h @ dw.T).mean(1)) < 1e-28


def test_direct_form_comes_to_the_first_order_as_learners_come_together() -> None:
    """Their ratio minus 1 falls with |dw|."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    weights = FlatWeights(network)
    centre = weights.read(weights.empty())
    batches = [(torch.randn(6, 5).double(), torch.randint(3, (6,))) for _ in range(LEARNERS)]
    dw = torch.randn(LEARNERS, weights.size, dtype=torch.float64)
    dw -= dw.mean(0)

    def gradient(j: int, at: Tensor) -> Tensor:
        weights.write(at)
        return Hessian(network, [batches[j]], 6).gradient()

    errors = []
    for scale in (1e-2, 1e-3, 1e-4):
        near = scale * dw
        changes = [gradient(j, centre + near[j]) - gradient(j, centre) for j in range(LEARNERS)]
        direct = RATE**2 * float(torch.stack(changes).mean(0).square().sum())
        weights.write(centre)
        products = [Hessian(network, [batches[j]], 6)(near[j]) for j in range(LEARNERS)]
        found = first_order(RATE, torch.stack(products).mean(0))
        errors.append(abs(direct / found - 1))
    assert errors[0] < 0.5
    np.testing.assert_array_less(errors[1:], np.array(errors[:-1]) / 5)
