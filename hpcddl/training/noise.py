"""Splits an update into its part along the overall gradient and noise (paper A sec. 2).

With g the gradient of the overall loss at w_a and g_a = mean_j g_j of the learners' mini-batches,

    -alpha g_a = -alpha_e g + eta,    eta . g = 0,    alpha_e^2 |g|^2 + |eta|^2 = alpha^2 |g_a|^2.
"""

import math

from torch import Tensor


def effective_learning_rate(rate: float, mean_gradient: Tensor, overall: Tensor) -> float:
    """alpha_e = alpha (g_a . g) / |g|^2 (paper A eq. 3); NaN where g is 0.

    Args:
        rate: alpha.
        mean_gradient: (d,) g_a.
        overall: (d,) g.
    """
    square = float(overall @ overall)
    return rate * float(mean_gradient @ overall) / square if square else math.nan


def noise_strength(rate: float, mean_gradient: Tensor, overall: Tensor) -> float:
    """Delta = |eta|^2, eta = -alpha g_a + alpha_e g (paper A sec. 2); arguments as above."""
    eta = effective_learning_rate(rate, mean_gradient, overall) * overall
    eta.sub_(mean_gradient, alpha=rate)
    return float(eta @ eta)
