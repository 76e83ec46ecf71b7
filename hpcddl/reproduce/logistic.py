"""Logistic regression as an objective: f, its gradient and its least value f*."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, vstack
from scipy.special import expit

from hpcddl.common.errors import UserError
from hpcddl.data.sampler import contiguous_batches
from hpcddl.data.shards import open_split

Array = NDArray[np.float64]

_ROWS = 4096  # made sparse at a time
_PRECISION = 1e-9


@dataclass(frozen=True)
class Logistic:
    """f(w) = mean_i log(1 + exp(-y_i x_i.w)) + l2/2 |w|^2 (paper B app. B.2)."""

    features: csr_array  # (N, d)
    signs: Array  # (N,) y: -1 for the first class, +1 for the second
    l2: float

    def value_and_gradient(self, w: Array) -> tuple[float, Array]:
        """f(w) and its gradient (d,)."""
        margins = self.signs * (self.features @ w)
        slopes = -self.signs * expit(-margins) / len(self.signs)
        value = np.logaddexp(0, -margins).mean() + self.l2 / 2 * (w @ w)
        return float(value), self.features.T @ slopes + self.l2 * w


def read_logistic(folder: Path) -> Logistic:
    """The training split of a shard set of vectors in two classes, with l2 = 1/N.

    The paper's l2 did not survive; 1/N is this project's choice.

    Raises:
        UserError: not such a shard set.
    """
    split = open_split(folder, "train")
    if len(split.shape) != 1 or split.classes != 2:
        raise UserError(
            f"--data {folder}: samples of shape {split.shape} in {split.classes} classes; "
            "must be vectors in 2 classes"
        )
    rows, signs = [], []
    for block in contiguous_batches(len(split), rank=0, ranks=1, batch=_ROWS):
        features, labels = split.batch(block)
        rows.append(csr_array(features.numpy().astype(np.float64)))
        signs.append(2.0 * labels.numpy() - 1)
    return Logistic(vstack(rows, format="csr"), np.concatenate(signs), 1 / len(split))


def minimum(problem: Logistic) -> tuple[float, Array]:
    """f* and its w (d,), by L-BFGS from 0.

    As f is l2-strongly convex, f(w) - f* <= |grad f(w)|^2 / (2 l2): below 1e-9, or it raises.

    Raises:
        ArithmeticError: L-BFGS ended before.
    """
    found = minimize(
        problem.value_and_gradient,
        np.zeros(problem.features.shape[1]),
        jac=True,
        method="L-BFGS-B",
        # ftol 0: only the gradient, or a line search at the limit of rounding, ends it.
        options={"gtol": 1e-10, "ftol": 0, "maxiter": 100_000, "maxfun": 200_000, "maxcor": 30},
    )
    excess = found.jac @ found.jac / (2 * problem.l2)
    if not excess <= _PRECISION:
        raise ArithmeticError(f"L-BFGS ended up to {excess:.1e} above f*: {found.message}")
    return float(found.fun), found.x
