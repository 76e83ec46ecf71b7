"""The objective and its least value; how far local SGD is from it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit

from hpcddl.cli import main
from hpcddl.common.errors import UserError
from hpcddl.reproduce.learners import local_sgd
from hpcddl.reproduce.logistic import Logistic, minimum, read_logistic
from hpcddl.reproduce.target import Combination, Tangents, iterations_to
from tests.synthetic import write_shards


def problem(samples: int = 120, features: int = 9, seed: int = 0) -> Logistic:
    """Sparse, not separable, with samples that have no feature at all."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, features)) * (random.random((samples, features)) < 0.3)
    x[:5] = 0
    signs = np.where(x @ random.normal(size=features) + random.normal(size=samples) > 0, 1.0, -1.0)
    return Logistic(csr_array(x), signs, 1 / samples)


def test_the_gradient_is_that_of_the_value() -> None:
    """Central differences of f."""
    f = problem()
    w = np.random.default_rng(1).normal(size=9)
    _, gradient = f.value_and_gradient(w)
    for i, e in enumerate(1e-6 * np.eye(9)):
        slope = (f.value_and_gradient(w + e)[0] - f.value_and_gradient(w - e)[0]) / 2e-6
        assert slope == pytest.approx(gradient[i], abs=1e-9)


def test_the_value_is_what_the_definition_says() -> None:
    """f(w) = mean log(1 + exp(-y x.w)) + l2/2 |w|^2, ln 2 at 0, finite where exp overflows."""
    f = problem()
    w = np.random.default_rng(2).normal(size=9)
    losses = np.log1p(np.exp(-f.signs * (f.features.toarray() @ w)))
    assert f.value_and_gradient(w)[0] == pytest.approx(losses.mean() + w @ w / 240, rel=1e-14)
    assert f.value_and_gradient(np.zeros(9))[0] == pytest.approx(np.log(2), rel=1e-15)
    assert np.isfinite(f.value_and_gradient(1e5 * w)[0])


def test_lbfgs_finds_newtons_minimum() -> None:
    """f* by Newton's method, with the Hessian written out."""
    f = problem()
    x, w = f.features.toarray(), np.zeros(9)
    for _ in range(30):
        p = expit(x @ w)
        hessian = (x.T * (p * (1 - p))) @ x / len(x) + f.l2 * np.eye(9)
        w = w - np.linalg.solve(hessian, f.value_and_gradient(w)[1])
    assert np.linalg.norm(f.value_and_gradient(w)[1]) < 1e-15
    lowest, found = minimum(f)
    assert lowest == pytest.approx(f.value_and_gradient(w)[0], abs=1e-14)
    np.testing.assert_allclose(found, w, atol=1e-6)


def test_tangents_lie_below_a_convex_function() -> None:
    """Equal to f where they touch it, never above it, also after the oldest are gone."""
    f, random = problem(), np.random.default_rng(3)
    tangents = Tangents(9)
    assert tangents.at(np.zeros(9)) == -np.inf
    for _ in range(100):
        v, w = random.normal(size=(2, 9))
        tangents.add(v, *f.value_and_gradient(v))
        assert tangents.at(v) == pytest.approx(f.value_and_gradient(v)[0], rel=1e-12)
        assert tangents.at(w) <= f.value_and_gradient(w)[0] + 1e-12


@pytest.mark.parametrize(
    "chosen", [Combination(1, 4, 1), Combination(3, 4, 1), Combination(3, 5, 4)]
)
def test_the_first_average_below_the_level_is_found(chosen: Combination) -> None:
    """As if f were computed at every average; one iteration less as the limit, and it is not."""
    f = problem()
    level = minimum(f)[0] + 0.02
    words = {"learners": chosen.learners, "batch": chosen.batch, "steps": chosen.steps}
    run = enumerate(local_sgd(f, rate=0.3, seed=1, **words), 1)
    expected = next(
        t
        for t, weights in run
        if t % chosen.steps == 0 and f.value_and_gradient(weights.mean(0))[0] <= level
    )
    assert expected > 3
    for limit, found in ((1e4, expected), (expected, expected), (expected - 1, np.inf)):
        assert iterations_to(f, level, chosen, rate=0.3, seed=1, limit=limit) == found


def test_a_rate_that_is_too_high_ends_by_itself() -> None:
    """rate * l2 > 2 makes w overflow: not reached, and no endless run."""
    chosen = Combination(2, 4, 1)
    assert iterations_to(problem(), 0.1, chosen, rate=1e4, seed=0, limit=1e9) == np.inf


def test_cost_counts_gradients_and_rounds() -> None:
    """Paper B app. B.2: iterations * B_loc + 25 a round; a single learner has no rounds."""
    assert Combination(16, 16, 4).cost(40, 25) == 40 * 16 + 10 * 25
    assert Combination(1, 16, 1).cost(40, 25) == 40 * 16


def test_only_vectors_in_two_classes_are_read(tmp_path: Path) -> None:
    frames = write_shards(tmp_path / "frames")
    with pytest.raises(
        UserError, match=r"samples of shape \(5, 6\) in 10 classes; must be vectors"
    ):
        read_logistic(frames)


def test_w8a_is_the_papers(real_data: Path, tmp_path: Path) -> None:
    """d = 300, N = 49,749; f* is known to 1e-9 and below the loss of guessing."""
    path = real_data / "libsvm-w8a" / "w8a"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not a file")
    out = tmp_path / "shards"
    assert main(f"prep libsvm --data {path} --heldout {path} --out {out}".split()) == 0
    f = read_logistic(out)
    assert f.features.shape == (49_749, 300)
    rare = (f.signs > 0).mean()
    guessing = -rare * np.log(rare) - (1 - rare) * np.log(1 - rare)
    assert 0.12 < minimum(f)[0] < guessing
