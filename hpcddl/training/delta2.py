"""The noise that decentralisation adds, Delta2, from the Hessian (paper A sec. 2, eq. 4).

With dw_j = w_j - w_a and H_j the Hessian of learner j's mini-batch at w_a,

    Delta2 = alpha^2 |mean_j [g_j(w_j) - g_j(w_a)]|^2  ->  alpha^2 |mean_j H_j dw_j|^2  as dw -> 0.

The paper writes alpha^2 Tr(H C H), C = n^-2 sum_j dw_j dw_j^T. That leaves out the cross terms, and
is another number: with the same H for all, mean_j H dw_j = H mean_j dw_j = 0.
"""

from collections.abc import Iterable

from torch import Tensor


def first_order(rate: float, mean_product: Tensor) -> float:
    """alpha^2 |mean_j H_j dw_j|^2.

    Args:
        rate: alpha.
        mean_product: (d,) mean_j H_j dw_j.
    """
    return rate**2 * float(mean_product @ mean_product)


def covariance_form(rate: float, products: Iterable[Tensor]) -> float:
    """alpha^2 Tr(H C H) = (alpha / n)^2 sum_j |H dw_j|^2.

    Args:
        rate: alpha.
        products: (d,) H dw_j of each learner, H of the overall loss; one is held at a time.
    """
    squares = [float(product @ product) for product in products]
    return (rate / len(squares)) ** 2 * sum(squares)
