"""The ends of the spectrum of a symmetric operator, by ARPACK."""

import numpy as np
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from hpcddl.analysis.rank_zero import Array, Product
from hpcddl.common.errors import UserError

MOST_RESTARTS = 300


def extreme_eigenvalues(
    product: Product, size: int, top: int, tolerance: float, seed: int
) -> tuple[Array, float]:
    """The `top` largest eigenvalues, falling (top,), and lambda_min, of H of `size` rows.

    lambda_min is sought as lambda_max less the largest eigenvalue of lambda_max I - H, so that
    `tolerance` is relative to lambda_max - lambda_min. Relative to lambda_min itself, where that is
    nearly 0, rounding would keep it from ever being met.

    Args:
        tolerance: of a Ritz pair's residual, relative to its eigenvalue. The eigenvalue is mostly
            far closer: its error falls with the residual's square.
        seed: of the vector that the iterations start from.

    Raises:
        UserError: `tolerance` is not met in MOST_RESTARTS restarts.
    """
    start = np.random.default_rng(seed).standard_normal(size)
    largest = _largest(product, start, top, tolerance)
    shift = largest[0]
    widest = _largest(lambda v: shift * v - product(v), start, 1, tolerance)[0]
    return largest, float(shift - widest)


def _largest(product: Product, start: Array, count: int, tolerance: float) -> Array:
    size = len(start)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        found = eigsh(
            operator,
            count,
            which="LA",
            v0=start,
            tol=tolerance,
            maxiter=MOST_RESTARTS,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence as error:
        raise UserError(
            f"--tolerance={tolerance:g}: not met by {count - len(error.eigenvalues)} of {count} "
            f"eigenvalues in {MOST_RESTARTS} restarts; fix: a larger one"
        ) from None
    except ArpackError:
        # ARPACK has no answer for H = 0, which a random vector tells.
        if product(start).any():
            raise
        return np.zeros(count)
    return np.sort(found)[::-1]
