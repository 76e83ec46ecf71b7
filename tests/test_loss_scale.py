"""The laws of a loss scale on one learner."""

import io

import pytest
import torch
from torch import Tensor, nn

from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.training.accumulate import backward
from hpcddl.training.autocast import Autocast

INFINITE, NAN = float("inf"), float("nan")


def steps(scale: LossScale, *gradients: float) -> list[bool]:
    """Whether each of a series of gradients is stepped along."""
    p = nn.Parameter(torch.zeros(2))
    taken = []
    for gradient in gradients:
        p.grad = torch.tensor([1.0, gradient])
        taken.append(scale.unscale([p]))
    return taken


@pytest.mark.parametrize("bad", [INFINITE, -INFINITE, NAN])
def test_overflow_halves_and_skips(bad: float) -> None:
    """Each overflow costs one step and half of the scale; what is finite is stepped along."""
    scale = LossScale()
    assert steps(scale, 1.0, bad, 1.0, bad, bad, 1.0) == [True, False, True, False, False, True]
    assert scale.value == 2.0**13


def test_doubles_after_good_steps_in_a_row() -> None:
    """An overflow starts the count anew, and so does a doubling."""
    scale = LossScale(start=8, patience=3)
    steps(scale, 1, 1, INFINITE, 1, 1)
    assert scale.value == 4
    steps(scale, 1)
    assert scale.value == 8
    steps(scale, 1, 1)
    assert scale.value == 8
    steps(scale, 1)
    assert scale.value == 16


def test_the_default_is_2_to_the_16_and_2000_steps() -> None:
    scale = LossScale()
    assert scale.value == 65536
    steps(scale, *[1.0] * 1999)
    assert scale.value == 65536
    steps(scale, 1.0)
    assert scale.value == 131072


def test_at_scale_one_nothing_is_skipped() -> None:
    """There the gradient itself is not finite: stepping along it shows that the run diverges."""
    scale = LossScale(start=2)
    assert steps(scale, NAN, NAN, INFINITE) == [False, True, True]
    assert scale.value == 1


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def frames() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(7, 5, 4), torch.randint(0, 3, (7, 5))


@pytest.mark.parametrize("parts", [1, 3])
def test_gradient_and_loss_do_not_depend_on_the_scale(parts: int) -> None:
    """A power of two: after unscaling the gradient has the same bits; the loss never was scaled."""
    plain, scaled, scale = network(), network(), LossScale(start=2.0**20)
    scaled.register_parameter("unused", nn.Parameter(torch.ones(2)))
    loss = backward(plain, *frames(), parts)
    assert torch.equal(backward(scaled, *frames(), parts, scale), loss)
    big = scaled[0].weight.grad.abs().max()
    assert scale.unscale(scaled.parameters())
    assert torch.equal(scaled[0].weight.grad.abs().max() * 2.0**20, big)
    for name, p in plain.named_parameters():
        assert torch.equal(p.grad, scaled.get_parameter(name).grad)


def test_an_overflowing_gradient_leaves_the_loss_finite() -> None:
    """Else a skipped step would count as divergence, which is read off the loss."""
    model, scale = Autocast(network(), torch.float16), LossScale(start=2.0**40)
    loss = backward(model, *frames(), 1, scale)
    assert loss.isfinite()
    assert not all(p.grad.isfinite().all() for p in model.parameters())
    assert not scale.unscale(model.parameters())


def test_small_gradients_survive_float16_by_it() -> None:
    """Gradients below 2^-24, float16's least, are zero without a scale and right with one."""
    x, y = frames()
    exact, lost, kept = network(), network(), network()
    scale = LossScale()
    for model in (exact, lost, kept):  # a large bias: nearly certain, and right
        model[2].bias.data[:] = torch.tensor([18.0, 0.0, 0.0])
    y[:] = 0
    backward(exact, x, y, 1)
    backward(Autocast(lost, torch.float16), x, y, 1)
    backward(Autocast(kept, torch.float16), x, y, 1, scale)
    assert scale.unscale(kept.parameters())
    right, found = exact[0].weight.grad, kept[0].weight.grad
    assert not lost[0].weight.grad.any()
    assert right.norm() > 0
    assert (found - right).norm() < 0.02 * right.norm()


def test_resumes() -> None:
    """Loaded from a file in the middle of a series, it goes on as if there had been no pause."""
    series = [1, 1, INFINITE, 1, 1, 1, 1, 1, NAN, 1, 1, 1]
    whole = LossScale(start=64, patience=3)
    first, second = LossScale(start=64, patience=3), LossScale(start=2, patience=3)
    expected = steps(whole, *series)
    done = steps(first, *series[:5])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert done + steps(second, *series[5:]) == expected
    assert second.state_dict() == whole.state_dict()
