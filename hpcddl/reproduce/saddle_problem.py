"""A loss of two weights with a strict saddle, and when learners leave it (paper A app. E).

The paper's own function did not survive; this one is ours. Sample i has two signs p_i, q_i = +-1:

    f_i(x, y) = a x^2 / 2 - b y^2 / 2 + c b y^4 / 4 + sigma p_i x + kappa q_i x y + tau q_i y.

Over all samples p, q and pq sum to 0, so the loss is L = a x^2 / 2 - b y^2 / 2 + c b y^4 / 4. At
(0, 0) its gradient is 0 and its Hessian diag(a, -b): a strict saddle. With c = 1 the minima are
(0, +-1), L = -b / 4, Hessian diag(a, 2b); with c = 0 there is none. A sample's gradient at the
saddle is (sigma p_i, tau q_i); its Hessian there is diag(a, -b) + kappa q_i [[0, 1], [1, 0]].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from hpcddl.communication.topology import RandomPair, Topology

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Saddle:
    """The loss's constants, and its N samples."""

    samples: int = 256  # N, a multiple of 4
    a: float = 1.0
    b: float = 0.1
    c: float = 1.0
    sigma: float = 1.0
    kappa: float = 1.0
    tau: float = 0.0

    def signs(self) -> tuple[Array, Array]:
        """p and q, (N,) each: the four pairs equally often."""
        numbers = np.arange(self.samples)
        pairs = np.stack([numbers % 2, numbers // 2 % 2]).astype(np.float64)
        p, q = 1 - 2 * pairs
        return p, q

    def loss(self, x: Array, y: Array) -> Array:
        """L, of all samples."""
        return self.a * x**2 / 2 - self.b * y**2 / 2 + self.c * self.b * y**4 / 4

    def gradient(self, weights: Array, p: Array, q: Array) -> Array:
        """(..., 2) of mini-batches at weights (..., 2); p and q (...) are their mean signs."""
        x, y = weights[..., 0], weights[..., 1]
        along = self.a * x + self.sigma * p + self.kappa * q * y
        across = self.b * (self.c * y**3 - y) + self.kappa * q * x + self.tau * q
        return np.stack([along, across], axis=-1)


@dataclass(frozen=True)
class SaddleSetting:
    """What learners do on a saddle."""

    learners: int  # n
    local_batch: int  # B; nB of the N samples are drawn afresh for each update
    rate: float  # alpha
    start: float  # standard deviation of x and y at the start, the same for all learners
    left: float  # the saddle is left once |y| of the consensus is above it
    updates: int  # after which it is not waited for any longer

    @property
    def global_batch(self) -> int:
        """nB."""
        return self.learners * self.local_batch


def batch_variance(samples: int, batch: int) -> float:
    """The variance of the mean of `batch` signs, drawn without replacement from N of sum 0."""
    return (samples - batch) / (batch * (samples - 1))


def spread(saddle: Saddle, setting: SaddleSetting, topology: Topology) -> float:
    """Stationary mean over j of (x_j - x_a)^2 under DPSGD near the saddle.

    dx(t+1) = (A - alpha a) dx(t) - alpha sigma dp(t): in each mode with eigenvalue lambda of a
    symmetric A, variance alpha^2 sigma^2 v / (1 - (lambda - alpha a)^2). Random pairs, which are
    projections, have E[lambda^2] = E[lambda] = lambda_2(E[A^T A]) in its place.
    """
    n, step = setting.learners, setting.rate * saddle.a
    if isinstance(topology, RandomPair):
        mean = topology.second_eigenvalue()
        kept = np.full(n - 1, mean * (1 - 2 * step) + step**2)
    else:
        kept = (np.sort(np.linalg.eigvalsh(topology(0)))[:-1] - step) ** 2
    drawn = batch_variance(saddle.samples, setting.local_batch)
    drawn -= batch_variance(saddle.samples, setting.global_batch)  # of their mean
    per_mode = (setting.rate * saddle.sigma) ** 2 * drawn * n / (n - 1)
    return float(per_mode * (1 / (1 - kept)).sum() / n)


def kicks(saddle: Saddle, setting: SaddleSetting, topology: Topology) -> float:
    """Variance of what the learners' spread adds to y_a per update, where nB = N.

    All that is left of the noise then is -alpha mean_j [g_j(w_j) - g_j(w_a)], along y
    -alpha kappa mean_j q_j dx_j. q_j and dx_j sum to 0 over j and are independent, so

        alpha^2 kappa^2 var(q_j) mean_j dx_j^2 / (n - 1).
    """
    drawn = batch_variance(saddle.samples, setting.local_batch)
    squares = drawn * spread(saddle, setting, topology)
    return (setting.rate * saddle.kappa) ** 2 * squares / (setting.learners - 1)


def staying(saddle: Saddle, setting: SaddleSetting, kick: float, updates: Array) -> Array:
    """P(T > t) in the linear regime, with Gaussian kicks of variance `kick` at every update.

    y(t) = growth^t y(0) + sum_s growth^(t-1-s) kick_s, growth = 1 + alpha b. The saturation
    towards the minimum is put in as the flow's, dy/dt = b (y - c y^3), which only lengthens the
    way to `left`.
    """
    growth = 1 + setting.rate * saddle.b
    reach = setting.left / sqrt(1 - saddle.c * setting.left**2)
    fallen = growth ** -np.asarray(updates, dtype=np.float64)
    variance = setting.start**2 + kick * (1 - fallen**2) / (growth**2 - 1)
    return erf(reach * fallen / np.sqrt(2 * variance))


def median_time(saddle: Saddle, setting: SaddleSetting, kick: float) -> float:
    """The t at which `staying` falls to one half."""
    low, high = 0.0, 1.0
    while staying(saddle, setting, kick, np.array(high)) > 0.5:
        low, high = high, 2 * high
        if high > 1e9:
            return inf
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        above = staying(saddle, setting, kick, np.array(middle)) > 0.5
        low, high = (middle, high) if above else (low, middle)
    return high
