"""Numbers as JSON can hold them."""

import math


def finite(value: float | None) -> float | None:
    """Replaces NaN and infinity, which JSON does not have, by None (null); None stays None."""
    return value if value is not None and math.isfinite(value) else None
