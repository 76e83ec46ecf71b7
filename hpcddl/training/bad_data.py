"""Tells data that is no number from a training that diverges, when a loss is not finite.

To look at every batch would cost a pass over its features. So the losses are looked at, which are
there anyway, and the samples behind one that is not finite are read again.
"""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import NDArray

from hpcddl.cluster.world import World
from hpcddl.data import Dataset


def check_samples(dataset: Dataset, batches: Iterable[NDArray], world: World) -> None:
    """Looks at all values of this rank's `batches`, (B,) indices into `dataset` each. Collective.

    Raises:
        AgreedError: a rank has found a feature that is not finite, or a label that is no class.
    """

    def look() -> None:
        for indices in batches:
            dataset.check(indices)

    world.together(look)
