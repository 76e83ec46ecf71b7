"""Optimizers: which parameters get what, and the limits in which one is another."""

import pytest
import torch
from torch import Tensor, nn

from hpcddl.common.errors import UserError
from hpcddl.optimizers import OPTIMIZERS, sgd
from hpcddl.optimizers.lars import lars


def network() -> nn.Sequential:
    """Each kind of parameter: two matrices, biases, batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, times: int = 1) -> list[Tensor]:
    """Steps at rate 0.1 on gradients drawn by step; the weights afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for time in range(times):
        torch.manual_seed(time)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_batch_norm_never_decays(name: str) -> None:
    """Paper B app. A.4; all else does, biases included."""
    model = network()
    optimizer = OPTIMIZERS[name](model, weight_decay=0.1)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.1, 0.1, 0, 0, 0.1, 0.1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nesterov_needs_momentum(name: str) -> None:
    with pytest.raises(UserError, match=r"optimizer\.momentum above 0"):
        OPTIMIZERS[name](network(), nesterov=True, momentum=0.0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_leaves_biases_and_batch_norm_to_sgd(nesterov: bool) -> None:
    """What is exempt takes the very steps of SGD; the matrices do not."""
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01}
    model, other = network(), network()
    one = step(model, lars(model, **options), times=4)
    two = step(other, sgd(other, **options), times=4)
    for a, b in zip(one, two, strict=True):
        if a.ndim == 1:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-15)
        else:
            assert (a - b).norm() > 0.1


def test_lars_moves_every_layer_by_the_same_part_of_its_norm() -> None:
    """|w(1) - w(0)| = lr * trust * |w(0)| without weight decay, however large the gradient."""
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    after = step(model, lars(model, trust=0.02, scale_vectors=True))
    for a, b in zip(after, before, strict=True):
        if b.norm():
            assert float((a - b).norm() / b.norm()) == pytest.approx(0.1 * 0.02)


def test_lars_moves_a_layer_that_is_zero_and_leaves_one_without_gradient() -> None:
    """lambda is 1 where it would be 0 / 0, or would hold a layer at 0 for ever."""
    model = nn.Linear(3, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    (moved,) = step(model, lars(model))
    torch.testing.assert_close(moved, -0.1 * model.weight.grad)
    optimizer = lars(model)
    model.weight.grad.zero_()
    optimizer.step()
    assert torch.equal(model.weight, moved)
    model.weight.grad = None
    optimizer.step()
    assert torch.equal(model.weight, moved)


def test_lars_leaves_the_gradients_as_they_were() -> None:
    model = network()
    step(model, lars(model, weight_decay=0.1, nesterov=True))
    torch.manual_seed(0)
    for p in model.parameters():
        assert torch.equal(p.grad, torch.randn_like(p))
