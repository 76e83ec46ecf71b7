"""Random directions: one per seed, and as long as the filters they belong to."""

import pytest
import torch
from torch import Tensor, nn

from hpcddl.analysis.directions import NORMALISE, random_direction
from hpcddl.common.flat import FlatWeights


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).to(dtype)


def pieces(model: nn.Module, seed: int, normalise: str) -> dict[str, Tensor]:
    views = FlatWeights(model).views(random_direction(model, seed, normalise))
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, views, strict=True))


def test_filters_have_the_length_of_their_own() -> None:
    """|d_i| = |w_i| for every filter and every row; biases and batch norm stay (Li et al. 2018)."""
    model = network()
    with torch.no_grad():
        model[3].weight[1] = 0  # a dead filter has no length to go
    found = pieces(model, 3, "filter")
    for name, weight in model.named_parameters():
        lengths = found[name].flatten(1).norm(dim=1) if weight.dim() > 1 else found[name]
        expected = weight.flatten(1).norm(dim=1) if weight.dim() > 1 else torch.zeros_like(weight)
        torch.testing.assert_close(lengths, expected, rtol=1e-14, atol=0)


def test_without_normalisation_every_weight_is_gaussian() -> None:
    """Mean 0 and variance 1 over a wide layer, whatever the weights; biases too."""
    model = nn.Linear(400, 250).double()
    drawn = random_direction(model, 0, "none")
    assert abs(float(drawn.mean())) < 5 / 1e5**0.5
    assert float(drawn.var()) == pytest.approx(1, abs=5 * (2 / 1e5) ** 0.5)
    assert (drawn[-250:] != 0).all()


@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_function_of_the_seed(normalise: str) -> None:
    """Whatever has been drawn elsewhere, in float32 the same to rounding; another seed another."""
    first = random_direction(network(), 7, normalise)
    torch.randn(5)
    assert torch.equal(first, random_direction(network(), 7, normalise))
    single = random_direction(network(torch.float32), 7, normalise)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), first, rtol=1e-6, atol=1e-7)
    other = random_direction(network(), 8, normalise)
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.5


def test_the_numbers_themselves() -> None:
    """NumPy's PCG64 from the seed, in the order of the parameters: the same on every machine."""
    drawn = random_direction(nn.Linear(2, 1).double(), 0, "none")
    expected = [0.12573022, -0.13210486, 0.64042265]
    torch.testing.assert_close(drawn.tolist(), expected, rtol=0, atol=1e-8)
