"""Numbers as JSON can hold them."""

import math


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity: null stands for both, and for what was not measured."""
    return value if value is not None and math.isfinite(value) else None
