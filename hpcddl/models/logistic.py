"""Logistic regression (paper B app. B.2)."""

from torch import Tensor, nn
from torch.nn.functional import pad

from hpcddl.common.errors import UserError


class LogisticRegression(nn.Module):
    """Vectors (B, D) to scores (B, C): 0 for the first class, x.w_c for every other; no bias."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes - 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        return pad(self.linear(vectors), (1, 0))


def logistic_regression(shape: tuple[int, ...], classes: int) -> nn.Module:
    """(C - 1) D weights, all 0 at the start: 300 for w8a's two classes of 300 features.

    `shape` is a sample's (D,). Raises UserError for samples that are no vectors, and one class.
    """
    if len(shape) != 1:
        raise UserError(
            f"model logistic_regression: takes vectors, the data has samples of {shape}"
        )
    if classes < 2:
        raise UserError(
            f"model logistic_regression: the data has {classes} class; must be 2 or more"
        )
    return LogisticRegression(shape[0], classes)
