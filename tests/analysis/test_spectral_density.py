"""Lanczos quadrature on quadratics, whose moments are known in closed form."""

import numpy as np
import pytest

from hpcddl.analysis.rank_zero import Array, Product
from hpcddl.analysis.spectral_density import (
    Quadrature,
    lanczos,
    quadrature,
    rademacher,
    smoothed,
    trace_estimate,
)

SIZE = 40


def symmetric(seed: int = 0) -> Array:
    a = np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    return (a + a.T) / 2


def times(matrix: Array) -> Product:
    return lambda vector: matrix @ vector


def test_moments_are_exact_up_to_2m_minus_1() -> None:
    """Gauss's quadrature: sum_i tau_i theta_i^p = v^T H^p v / d for p < 2m, and not for p = 2m."""
    matrix, probe, steps = symmetric(), rademacher(SIZE, 0, 0), 5
    found = quadrature(times(matrix), probe, steps)
    moments = [probe @ np.linalg.matrix_power(matrix, p) @ probe / SIZE for p in range(11)]
    for power in range(2 * steps):
        assert found.moment(power) == pytest.approx(moments[power], rel=1e-10), power
    assert found.moment(2 * steps) != pytest.approx(moments[2 * steps], rel=1e-3)


def test_on_a_diagonal_one_probe_knows_every_moment() -> None:
    """v_i^2 = 1: v^T H^p v = Tr(H^p) without any error, and so the trace has none."""
    values = np.random.default_rng(1).standard_normal(SIZE)
    found = [quadrature(lambda v: values * v, rademacher(SIZE, 0, k), 4) for k in range(3)]
    for power in range(8):
        assert found[0].moment(power) == pytest.approx((values**power).mean(), rel=1e-10)
    trace, error = trace_estimate(found, SIZE)
    assert trace == pytest.approx(values.sum(), rel=1e-10)
    assert error < 1e-10


def test_trace_is_within_its_error() -> None:
    """Var(v^T H v) = 2 sum_{i != j} H_ij^2 (Hutchinson 1990)."""
    matrix, probes = symmetric(), 200
    found = [quadrature(times(matrix), rademacher(SIZE, 3, k), 2) for k in range(probes)]
    trace, error = trace_estimate(found, SIZE)
    off = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert error == pytest.approx(np.sqrt(2 * off / probes), rel=0.2)
    assert abs(trace - np.trace(matrix)) < 4 * error


def test_all_steps_find_all_eigenvalues_once() -> None:
    """Which without reorthogonalisation would come up again and again."""
    values = np.concatenate([np.linspace(0, 1e-3, SIZE - 2), [5.0, 9.0]])
    q, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((SIZE, SIZE)))
    found = quadrature(times(q * values @ q.T), rademacher(SIZE, 0, 0), SIZE)
    np.testing.assert_allclose(found.nodes, values, atol=1e-12)
    assert found.weights.sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("kinds", "steps"), [([0.0], 1), ([2.0], 1), ([1.0, -3.0, 4.0], 3)])
def test_an_invariant_space_ends_it(kinds: list[float], steps: int) -> None:
    """As many steps as there are different eigenvalues."""
    values = np.resize(kinds, SIZE)
    diagonal, beside = lanczos(lambda v: values * v, np.ones(SIZE), 20)
    assert (len(diagonal), len(beside)) == (steps, steps - 1)
    found = quadrature(lambda v: values * v, np.ones(SIZE), 20)
    np.testing.assert_allclose(found.nodes, sorted(kinds), atol=1e-12)


def test_smoothed_is_a_density() -> None:
    """It integrates to 1, and a lone node is a Gaussian of its own."""
    at = np.linspace(-3, 3, 6001)
    probe = Quadrature(np.array([-1.0, 0.5]), np.array([0.25, 0.75]))
    values = smoothed([probe, probe], at, 0.1)
    assert np.trapezoid(values, at) == pytest.approx(1, rel=1e-9)
    lone = smoothed([Quadrature(np.zeros(1), np.ones(1))], at, 0.2)
    np.testing.assert_allclose(
        lone, np.exp(-(at**2) / 0.08) / np.sqrt(2 * np.pi * 0.04), atol=1e-15
    )


def test_probes_are_their_own() -> None:
    """+1 and -1, another for each number and seed."""
    one = rademacher(1000, 0, 0)
    assert set(one) == {-1.0, 1.0}
    assert abs(one.sum()) < 150
    for other in (rademacher(1000, 0, 1), rademacher(1000, 1, 0)):
        assert abs(one @ other) < 150
