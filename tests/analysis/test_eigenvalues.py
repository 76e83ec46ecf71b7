"""ARPACK's eigenvalues on operators whose spectrum is known."""

import numpy as np
import pytest

from hpcddl.analysis import eigenvalues
from hpcddl.analysis.eigenvalues import extreme_eigenvalues
from hpcddl.analysis.rank_zero import Array, Product
from hpcddl.common.errors import UserError


def diagonal(values: Array) -> Product:
    return lambda vector: values * vector


@pytest.mark.parametrize("least", [-3.0, -1e-9, 0.0, 0.5])
def test_ends_of_a_diagonal(least: float) -> None:
    """Also where lambda_min is nearly 0, which a relative tolerance alone would never meet."""
    values = np.linspace(least, 10, 60)
    largest, found = extreme_eigenvalues(diagonal(values), 60, 3, 1e-9, seed=0)
    np.testing.assert_allclose(largest, values[:-4:-1], rtol=1e-9)
    assert found == pytest.approx(least, abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 2.0, -2.0])
def test_a_multiple_of_the_identity(value: float) -> None:
    """H = c I, H = 0 included: all eigenvalues are c."""
    largest, least = extreme_eigenvalues(diagonal(np.full(30, value)), 30, 1, 1e-6, seed=0)
    np.testing.assert_allclose(largest, [value], rtol=1e-12)
    assert least == pytest.approx(value, rel=1e-12)


def test_what_is_not_met_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of many that are nearly equal take more than one restart."""
    monkeypatch.setattr(eigenvalues, "MOST_RESTARTS", 1)
    values = 1 - np.linspace(0, 1e-6, 400)
    with pytest.raises(UserError, match=r"--tolerance=1e-14: not met by \d of 3 eigenvalues in 1"):
        extreme_eigenvalues(diagonal(values), 400, 3, 1e-14, seed=0)
