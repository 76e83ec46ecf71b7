"""Gradient accumulation: the loss, the gradient, and how often hooks fire."""

import pytest
import torch
from torch import nn

from hpcddl.training.accumulate import backward
from hpcddl.training.evaluate import classification_loss


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Seven windows of five frames."""
    torch.manual_seed(1)
    return torch.randn(7, 5, 4, dtype=torch.float64), torch.randint(0, 3, (7, 5))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_loss_and_gradient_are_those_of_the_batch(parts: int) -> None:
    """Seven samples in unequal parts: every part counts by its size."""
    one, other = network(), network()
    expected = classification_loss(one(frames()[0]), frames()[1])
    expected.backward()
    loss = backward(other, *frames(), parts)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-14, atol=0)
    for p, q in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-15)


def test_hooks_fire_once_and_see_the_whole_gradient() -> None:
    """Strategies start a parameter's communication in such a hook."""
    one, other = network(), network()
    backward(one, *frames(), 1)
    seen: list[torch.Tensor] = []
    for p in other.parameters():
        p.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    backward(other, *frames(), 3)
    assert len(seen) == 4
    by_shape = {g.shape: g for g in seen}
    for p in one.parameters():
        torch.testing.assert_close(by_shape[p.shape], p.grad, rtol=0, atol=1e-15)


def test_parameters_that_share_a_gradient_do_not_add_to_each_other() -> None:
    """Two biases in one sum, as an LSTM has them: autograd hands both the same tensor."""

    class Biases(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.zeros(4, dtype=torch.float64))
            self.two = nn.Parameter(torch.zeros(4, dtype=torch.float64))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features + (self.one + self.two)

    whole, parts = Biases(), Biases()
    backward(whole, *frames(), 1)
    backward(parts, *frames(), 2)
    torch.testing.assert_close(parts.one.grad, whole.one.grad, rtol=0, atol=1e-15)
    torch.testing.assert_close(parts.two.grad, whole.two.grad, rtol=0, atol=1e-15)


def test_a_frozen_or_unused_parameter_is_no_obstacle() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    backward(model, *frames(), 3)
    assert model[0].weight.grad is None
    assert not model.get_parameter("unused").grad.any()
