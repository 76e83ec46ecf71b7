"""Mixing matrices: who averages with whom at each step (paper A sec. 2 and 4; Lian et al. 2017).

A topology is a function of the step that returns the mixing matrix A (n, n), doubly stochastic,
float64; learner j's new weights are sum_k A_jk w_k. It is made from the number of learners n and
the run's seed (which only random topologies use), so every learner computes the same matrix.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from hpcddl.common.errors import UserError
from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_first

Matrix = NDArray[np.float64]
Topology = Callable[[int], Matrix]


def full(n: int, seed: int) -> Topology:
    """A = 1/n: every learner starts its step at the consensus (paper A fig. 2a)."""
    matrix = np.full((n, n), 1 / n)
    return lambda step: matrix


def ring(n: int, seed: int, *, neighbours: PositiveInt = 1) -> Topology:
    """k neighbours on each side, equal weights 1/(2k+1) (paper A fig. 2b: n = 6, k = 2).

    Where both sides meet in one learner (2k = n) its two weights add up.

    Raises:
        UserError: 2k > n (n > 1), which would go around the ring.
    """
    if 2 * neighbours > max(n, 2):
        raise UserError(f"topology.neighbours={neighbours}: must be 1 to {n // 2} for n={n}")
    matrix = _equal_weights(n, [hop for k in range(1, neighbours + 1) for hop in (k, -k)])
    return lambda step: matrix


def torus(n: int, seed: int) -> Topology:
    """A wrapped grid, as square as n allows; each learner and its four neighbours weigh 1/5."""
    rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
    columns = n // rows
    matrix = np.zeros((n, n))
    for j in range(n):
        row, column = divmod(j, columns)
        for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            # Neighbours that coincide on a thin grid add up, so rows still sum to 1.
            k = (row + down) % rows * columns + (column + right) % columns
            matrix[j, k] += 1 / 5
    return lambda step: matrix


def exponential(n: int, seed: int) -> Topology:
    """Learner j hears from j+1, j+2, j+4, ... (mod n), with equal weights."""
    matrix = _equal_weights(n, _powers_of_two(n))
    return lambda step: matrix


def one_peer_exponential(n: int, seed: int) -> Topology:
    """At each step one peer, weight 1/2, the hop cycling through 1, 2, 4, ... below n."""
    matrices = [_equal_weights(n, [hop]) for hop in _powers_of_two(n)] or [np.eye(1)]
    return Cycle(matrices)


def random_pair(n: int, seed: int) -> Topology:
    """A random perfect matching at each step; pairs average with weight 1/2 (paper A sec. 4).

    Drawn from (seed, step) alone, so that all learners agree without a message and a resumed
    run draws the same pairs. With n odd one learner idles.
    """
    return RandomPair(n, seed)


def from_file(n: int, seed: int, *, path: str) -> Topology:
    """A fixed matrix: n lines of n numbers (numpy.loadtxt), or a .npy file.

    Raises:
        UserError: missing, not numbers, not (n, n), or not doubly stochastic.
    """
    try:
        loaded = np.load(path) if Path(path).suffix == ".npy" else np.loadtxt(path, ndmin=2)
    except FileNotFoundError:
        raise UserError(f"topology.path={path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"topology.path={path}: not a matrix of numbers: {error}") from None
    if loaded.dtype.kind not in "fiu" or loaded.shape != (n, n):
        raise UserError(
            f"topology.path={path}: shape {loaded.shape} of {loaded.dtype}; must be ({n}, {n}) "
            f"numbers for {n} learners"
        )
    matrix = loaded.astype(np.float64)
    fault = stochastic_fault(matrix)
    if fault:
        raise UserError(f"topology.path={path}: not doubly stochastic: {fault}")
    return lambda step: matrix


class Cycle:
    """Matrices taken in turn; `period` is how many."""

    def __init__(self, matrices: list[Matrix]) -> None:
        self.matrices = matrices
        self.period = len(matrices)

    def __call__(self, step: int) -> Matrix:
        return self.matrices[step % self.period]


class RandomPair:
    """A perfect matching of n learners for each step, from (seed, step).

    A learner gives its partner's weights the weight `partner`: at 1/2 both end with their average.
    """

    def __init__(self, n: int, seed: int, partner: float = 0.5) -> None:
        self.n, self.seed, self.partner = n, seed, partner

    def __call__(self, step: int) -> Matrix:
        n = self.n
        order = np.random.default_rng([self.seed, step]).permutation(n)
        first, second = order[: n // 2], order[n // 2 : n // 2 * 2]
        matrix = np.eye(n)
        matrix[first, first] = matrix[second, second] = 1 - self.partner
        matrix[first, second] = matrix[second, first] = self.partner
        return matrix

    def second_eigenvalue(self) -> float:
        """lambda_2 of E[A^T A]; n > 1.

        With partner = 1/2 each A is a projection P, and A^T A = A; otherwise it is
        P + (1 - 2 partner) (I - P). Two given learners meet with probability 1/(n-1), or 1/n when
        one of an odd n idles.
        """
        projection = 0.5 if self.n % 2 else 0.5 - 0.5 / (self.n - 1)
        return projection + (1 - 2 * self.partner) ** 2 * (1 - projection)


def lazy(topology: Topology) -> Topology:
    """(I + A) / 2 in place of A: every learner moves half the way."""
    if isinstance(topology, RandomPair):
        return RandomPair(topology.n, topology.seed, topology.partner / 2)
    if isinstance(topology, Cycle):
        return Cycle([(np.eye(len(a)) + a) / 2 for a in topology.matrices])
    matrix = (np.eye(len(topology(0))) + topology(0)) / 2
    return lambda step: matrix


def delay_fault(topology: Topology, n: int) -> str | None:
    """Why differences grow in W(t+1) = W(t) + (A - I) W(t-1), or None.

    They never do for symmetric A with eigenvalues above 0, as random pairs' are once lazy. For
    others it is the largest eigenvalue of the recursion of (W(t), W(t-1)) over one period.
    """
    if isinstance(topology, RandomPair):
        return None
    matrices = topology.matrices if isinstance(topology, Cycle) else [topology(0)]
    one, zero = np.eye(n), np.zeros((n, n))
    period = np.eye(2 * n)
    for matrix in matrices:
        period = np.block([[one, matrix - one], [one, zero]]) @ period
    growth = float(np.abs(np.linalg.eigvals(period)).max())
    # The consensus keeps the eigenvalue 1; rounding spreads what shares it with others.
    return f"differences grow {growth:.3f}-fold per period" if growth > 1 + 1e-6 else None


def stochastic_fault(matrix: Matrix) -> str | None:
    """Why a matrix is not doubly stochastic (to 1e-9), or None."""
    if not np.isfinite(matrix).all():
        return "an entry is not finite"
    if matrix.min() < 0:
        j, k = np.unravel_index(matrix.argmin(), matrix.shape)
        return f"entry ({j}, {k}) is {matrix[j, k]:.6g}, below 0"
    for axis, name in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis=axis)
        worst = int(np.abs(sums - 1).argmax())
        if abs(sums[worst] - 1) > 1e-9:
            return f"{name} {worst} sums to {sums[worst]:.9g}, not 1"
    return None


def spectral_gap(topology: Topology, n: int) -> float:
    """How fast the learners agree: 0 never, 1 at once.

    1 - |lambda_2(A)| for a fixed matrix; for a cycle 1 - sigma_2 of the product over one period;
    for random pairs 1 - sqrt(lambda_2(E[A^T A])).
    """
    if n == 1:
        return 1.0
    if isinstance(topology, RandomPair):
        return 1 - math.sqrt(topology.second_eigenvalue())
    if isinstance(topology, Cycle):
        product = np.eye(n)
        for matrix in topology.matrices:
            product = matrix @ product
        return float(1 - np.linalg.svd(product, compute_uv=False)[1])
    return float(1 - np.sort(np.abs(np.linalg.eigvals(topology(0))))[-2])


def _equal_weights(n: int, hops: Iterable[int]) -> Matrix:
    """A circulant: each learner and those `hops` further on, all with the same weight."""
    shifts = [np.roll(np.eye(n), hop, axis=1) for hop in (0, *hops)]
    return np.mean(shifts, axis=0)


def _powers_of_two(n: int) -> list[int]:
    return [1 << k for k in range((n - 1).bit_length())]


TOPOLOGIES = Table(
    {
        "full": full,
        "ring": ring,
        "torus": torus,
        "exponential": exponential,
        "one_peer_exponential": one_peer_exponential,
        "random_pair": random_pair,
        "from_file": from_file,
    },
    own=partial(with_first, count=2),
)
