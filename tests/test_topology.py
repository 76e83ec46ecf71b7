"""Mixing matrices: doubly stochastic at every step, with the spectral gaps of theory."""

import math
from pathlib import Path

import numpy as np
import pytest

from hpcddl.common.errors import UserError
from hpcddl.communication.topology import (
    TOPOLOGIES,
    Cycle,
    Topology,
    delay_fault,
    exponential,
    from_file,
    full,
    lazy,
    one_peer_exponential,
    random_pair,
    ring,
    spectral_gap,
    stochastic_fault,
    torus,
)

NAMES = [name for name in TOPOLOGIES if name != "from_file"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16])
def test_doubly_stochastic_at_every_step(name: str, n: int) -> None:
    """Rows and columns sum to 1 and no entry is negative, so the consensus is preserved."""
    topology = TOPOLOGIES[name](n, 7)
    for step in range(9):
        matrix = topology(step)
        assert matrix.shape == (n, n)
        assert stochastic_fault(matrix) is None


def test_ring_weighs_its_neighbours_equally() -> None:
    """Paper A fig. 2b: six learners, two neighbours on each side, five equal weights."""
    row = ring(6, 0, neighbours=2)(0)[0]
    np.testing.assert_array_equal(row, [0.2, 0.2, 0.2, 0, 0.2, 0.2])
    with pytest.raises(UserError, match="neighbours=3"):
        ring(5, 0, neighbours=3)


def test_full_is_the_consensus() -> None:
    """A = 1/n (paper A fig. 2a)."""
    np.testing.assert_array_equal(full(5, 0)(3), np.full((5, 5), 0.2))


def test_torus_has_four_neighbours() -> None:
    """On a 4 x 4 grid each learner weighs itself and four others 1/5."""
    matrix = torus(16, 0)(0)
    assert (np.count_nonzero(matrix, axis=1) == 5).all()
    np.testing.assert_array_equal(np.flatnonzero(matrix[5]), [1, 4, 5, 6, 9])


def test_exponential_hears_at_powers_of_two() -> None:
    np.testing.assert_array_equal(np.flatnonzero(exponential(16, 0)(0)[0]), [0, 1, 2, 4, 8])


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_one_peer_exponential_averages_exactly_in_log_n_steps(n: int) -> None:
    """At n = 2^k the product of k steps is 1/n, so its gap is 1."""
    topology = one_peer_exponential(n, 0)
    assert isinstance(topology, Cycle)
    product = np.eye(n)
    for step in range(topology.period):
        product = topology(step) @ product
    np.testing.assert_allclose(product, 1 / n, atol=1e-15)
    assert spectral_gap(topology, n) == pytest.approx(1)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_random_pair_is_a_perfect_matching_that_changes(n: int) -> None:
    """Everyone has one partner (one idles if n is odd), drawn from seed and step alone."""
    topology, again, other = random_pair(n, 3), random_pair(n, 3), random_pair(n, 4)
    for step in range(20):
        matrix = topology(step)
        np.testing.assert_array_equal(matrix, again(step))
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.count_nonzero(np.diag(matrix) == 0.5) == n // 2 * 2
    if n > 2:
        assert any((topology(s) != topology(s + 1)).any() for s in range(5))
        assert any((topology(s) != other(s)).any() for s in range(5))


def test_spectral_gaps_of_theory() -> None:
    """Full: 1; ring: eigenvalues (1 + 2 cos(2 pi i / n)) / 3; two learners' pair: 1."""
    n = 8
    assert spectral_gap(full(n, 0), n) == pytest.approx(1)
    second = (1 + 2 * math.cos(2 * math.pi / n)) / 3
    assert spectral_gap(ring(n, 0), n) == pytest.approx(1 - second)
    assert spectral_gap(random_pair(2, 0), 2) == 1
    assert spectral_gap(ring(1, 0), 1) == 1


@pytest.mark.parametrize("n", [3, 4, 7, 8])
def test_random_pairs_gap_is_that_of_the_mean(n: int) -> None:
    """1 - sqrt(lambda_2(E[A^T A])) in closed form against the mean of many drawn matrices."""
    topology, draws = random_pair(n, 1), 4000
    mean = sum(topology(step).T @ topology(step) for step in range(draws)) / draws
    sampled = 1 - math.sqrt(np.linalg.eigvalsh(mean)[-2])
    assert spectral_gap(topology, n) == pytest.approx(sampled, abs=0.03)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0.5 0.5\n0.4 0.6\n", "column . sums to"),
        ("0.5 0.4\n0.5 0.5\n", "row 0 sums to 0.9"),
        ("1.5 -0.5\n-0.5 1.5\n", "below 0"),
        ("nan 1\n1 0\n", "not finite"),
        ("1 0 0\n0 1 0\n0 0 1\n", r"shape \(3, 3\)"),
        ("one two\n", "not a matrix of numbers"),
    ],
)
def test_a_bad_matrix_is_named(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "A.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=fault):
        from_file(2, 0, path=str(path))


def test_a_matrix_from_a_file_is_used_as_it_is(tmp_path: Path) -> None:
    matrix = np.array([[0.2, 0.8], [0.8, 0.2]])
    np.savetxt(tmp_path / "A.txt", matrix)
    np.save(tmp_path / "A.npy", matrix)
    for name in ("A.txt", "A.npy"):
        np.testing.assert_array_equal(from_file(2, 0, path=str(tmp_path / name))(5), matrix)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 3, 6, 8])
def test_lazy_moves_half_the_way(name: str, n: int) -> None:
    """(I + A) / 2 at every step, still doubly stochastic."""
    topology = TOPOLOGIES[name](n, 7)
    for step in range(4):
        half = (np.eye(n) + topology(step)) / 2
        np.testing.assert_allclose(lazy(topology)(step), half, atol=1e-15)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_spectral_gap_of_lazy_random_pairs_is_that_of_many_draws(n: int) -> None:
    """1 - sqrt(lambda_2(E[A^T A])), the expectation over all that may be drawn."""
    topology = lazy(random_pair(n, 1))
    draws = [topology(step) for step in range(4000)]
    mean = np.mean([a.T @ a for a in draws], axis=0)
    expected = 1 - math.sqrt(np.sort(np.linalg.eigvalsh(mean))[-2])
    assert spectral_gap(topology, n) == pytest.approx(expected, abs=0.02)


def differences_after(topology: Topology, n: int, steps: int) -> float:
    """|W - consensus| after a delayed recursion from random learners, relative to the start."""
    before = now = np.random.default_rng(0).normal(size=(n, 3))
    start = np.linalg.norm(now - now.mean(0))
    for step in range(steps):
        now, before = now + topology(step) @ before - before, now
    return float(np.linalg.norm(now - now.mean(0)) / start)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 16])
def test_lazy_topologies_bear_a_delay(name: str, n: int) -> None:
    """What `delay_fault` lets pass converges, every packaged topology included."""
    topology = lazy(TOPOLOGIES[name](n, 3))
    assert delay_fault(topology, n) is None
    assert differences_after(topology, n, 600) < 1e-6


def test_a_delay_makes_a_shift_grow() -> None:
    """A shift's eigenvalues lie on the unit circle: even its lazy form is refused, and diverges."""
    shift = np.roll(np.eye(4), 1, axis=1)
    topology = lazy(lambda step: shift)
    fault = delay_fault(topology, 4)
    assert fault is not None
    assert "1.096" in fault
    assert differences_after(topology, 4, 600) > 1e6
