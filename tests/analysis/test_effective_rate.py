"""The effective learning rate and the noise of an update, in float64."""

import math

import pytest
import torch

from hpcddl.training.noise import effective_learning_rate, noise_strength


def vectors(seed: int, dimensions: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    g, other = torch.randn(2, dimensions, generator=drawn, dtype=torch.float64)
    return g, g + other


@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_rate_and_noise_share_out_the_step(rate: float) -> None:
    """alpha_e^2 |g|^2 + Delta = alpha^2 |g_a|^2 (paper A sec. 2)."""
    for seed in range(5):
        g, g_a = vectors(seed)
        alpha_e = effective_learning_rate(rate, g_a, g)
        delta = noise_strength(rate, g_a, g)
        assert delta > 0
        whole = rate**2 * float(g_a @ g_a)
        assert alpha_e**2 * float(g @ g) + delta == pytest.approx(whole, rel=1e-14)


def test_only_what_is_along_the_gradient_counts() -> None:
    """g_a = c g + something orthogonal: alpha_e = c alpha, Delta = alpha^2 |something|^2."""
    g = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    across = torch.tensor([-4.0, 3.0, 2.0], dtype=torch.float64)
    assert effective_learning_rate(0.5, -2 * g + across, g) == pytest.approx(-1, rel=1e-15)
    assert noise_strength(0.5, -2 * g + across, g) == pytest.approx(0.25 * 29, rel=1e-15)


def test_the_overall_gradient_itself_has_no_noise() -> None:
    """g_a = g: alpha_e = alpha and Delta = 0, exactly."""
    g, _ = vectors(0)
    assert effective_learning_rate(0.3, g, g) == pytest.approx(0.3, rel=1e-15)
    assert noise_strength(0.3, g, g) < 1e-30


def test_at_a_stationary_point_there_is_no_rate() -> None:
    """g = 0: neither number is defined."""
    _, g_a = vectors(0)
    assert math.isnan(effective_learning_rate(1.0, g_a, 0 * g_a))
    assert math.isnan(noise_strength(1.0, g_a, 0 * g_a))
