"""Writes random samples in place of a data set that is missing."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.data.known import Contents
from hpcddl.data.shard_writer import ShardSetWriter


def write_stand_in(folder: Path, contents: Contents, samples: Mapping[str, int]) -> None:
    """Writes a shard set to the new `folder`; `samples` of each split (for text: tokens).

    Numbers are N(0, 1), pixels and classes uniform; the same samples every time.
    """
    random = np.random.default_rng(0)
    folder.mkdir()

    def draw(name: str, count: int) -> NDArray:
        field = contents.fields[name]
        shape = (count, *field.shape)
        if name in ("labels", "tokens"):
            return random.integers(contents.classes, size=shape, dtype=np.int32)
        if name != "features":
            return np.zeros(shape, field.type)
        if field.dtype == "uint8":
            return random.integers(256, size=shape, dtype=np.uint8)
        return random.standard_normal(shape, np.float32)

    with ShardSetWriter(
        folder,
        contents.kind,
        contents.fields,
        classes=contents.classes,
        samples=samples,
        samples_per_shard=max(samples.values()),
    ) as writer:
        for split, count in samples.items():
            writer.append(split, **{name: draw(name, count) for name in contents.fields})
        writer.finish(provenance={}, counts={})
