"""Single samples as they are stored, for people to look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcddl.data.split_files import SplitFiles


def stored(files: SplitFiles, field: str, indices: NDArray[np.int64]) -> NDArray:
    """(n, *shape) the field of the samples `indices`, in their order."""
    shards = files.ends.searchsorted(indices, side="right")
    rows = []
    for shard, index in zip(shards.tolist(), indices.tolist(), strict=True):
        region = files.regions[shard][field]
        first = int(files.ends[shard]) - region.shape[0]
        rows.append(region.map(files.paths[shard])[index - first])
    return np.array(rows)


def spread(first: int, count: int, samples: int) -> NDArray[np.int64]:
    """Picks at most `count` samples at equal distances from `first` on, continuing at the start.

    In a set that is sorted by class they thus come from all classes.
    """
    count = min(count, samples)
    return (first + np.arange(count) * samples // count) % samples
