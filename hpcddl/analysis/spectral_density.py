"""The density of all eigenvalues, by stochastic Lanczos quadrature.

As in Ghorbani, Krishnan & Xiao (2019) and PyHessian (Yao et al. 2020). For a random v with |v| = 1,
E[v^T f(H) v] = Tr f(H) / d, and m steps of Lanczos from v give Gauss's quadrature of it,

    v^T f(H) v ~ sum_i tau_i f(theta_i),    exact for polynomials f up to degree 2m - 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hpcddl.analysis.rank_zero import Array, Product


@dataclass(frozen=True)
class Quadrature:
    """Nodes theta_i and weights tau_i, which sum to 1, of one probe: both (m,)."""

    nodes: Array
    weights: Array

    def moment(self, power: int) -> float:
        """sum_i tau_i theta_i^p, which estimates Tr(H^p) / d."""
        return float(self.weights @ self.nodes**power)


def rademacher(size: int, seed: int, probe: int) -> Array:
    """(d,) random numbers -1 or 1, by the arguments alone: a probe v times sqrt(d)."""
    return np.random.default_rng([seed, probe]).choice((-1.0, 1.0), size)


def lanczos(product: Product, start: Array, steps: int) -> tuple[Array, Array]:
    """Diagonal (m,) and off-diagonal (m - 1,) of T = Q^T H Q, the first column of Q along `start`.

    With full reorthogonalisation, twice: without it eigenvalues appear more than once. m is
    `steps`, or less where H maps the span of fewer vectors into itself. Holds m vectors (d,).
    """
    basis = np.empty((min(steps, len(start)), len(start)))
    basis[0] = start / np.linalg.norm(start)
    diagonal: list[float] = []
    beside: list[float] = []
    for k in range(len(basis)):
        rest = product(basis[k])
        diagonal.append(float(basis[k] @ rest))
        scale = np.linalg.norm(rest)
        for _ in range(2):
            rest -= (basis[: k + 1] @ rest) @ basis[: k + 1]
        length = np.linalg.norm(rest)
        if k + 1 == len(basis) or length <= len(start) * np.finfo(np.float64).eps * scale:
            break
        beside.append(float(length))
        basis[k + 1] = rest / length
    return np.array(diagonal), np.array(beside)


def quadrature(product: Product, start: Array, steps: int) -> Quadrature:
    """Runs Lanczos from `start` (d,): T's eigenvalues, its eigenvectors' first rows squared."""
    nodes, vectors = eigh_tridiagonal(*lanczos(product, start, steps))
    return Quadrature(nodes, vectors[0] ** 2)


def smoothed(found: list[Quadrature], at: Array, sigma: float) -> Array:
    """Density at `at` (P,): the mean over the probes of sum_i tau_i N(at; theta_i, sigma^2)."""
    total = np.zeros(len(at))
    for probe in found:
        distance = (at[:, None] - probe.nodes) / sigma
        total += np.exp(-0.5 * distance**2) @ probe.weights
    return total / (len(found) * sigma * np.sqrt(2 * np.pi))


def trace_estimate(found: list[Quadrature], size: int) -> tuple[float, float]:
    """Tr(H) (Hutchinson 1990), and its standard error over the probes; NaN with a single one."""
    traces = size * np.array([probe.moment(1) for probe in found])
    count = len(found)
    error = float(traces.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan
    return float(traces.mean()), error
