"""A small shard set with known contents."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hpcddl.data.manifest import window_fields
from hpcddl.data.shard_writer import ShardSetWriter, write_lines

FRAMES, FEATURES, CLASSES = 5, 7, 11  # odd, so that float16 labels would be unaligned by chance


@dataclass(frozen=True)
class Made:
    """A shard set on disk and the arrays that went into its training split."""

    folder: Path
    features: NDArray[np.float32]
    labels: NDArray[np.int32]
    utterance: NDArray[np.int32]
    start: NDArray[np.int32]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """Writes `windows` random windows, appended `step` at a time, into shards of `per_shard`."""

    def write(
        dtype: str = "float32",
        windows: int = 53,
        per_shard: int = 20,
        step: int = 9,
        name: str = "set",
    ) -> Made:
        rng = np.random.default_rng(1)
        made = Made(
            tmp_path / name,
            rng.standard_normal((windows, FRAMES, FEATURES), dtype=np.float32),
            rng.integers(0, CLASSES, (windows, FRAMES), dtype=np.int32),
            rng.integers(0, 3, windows, dtype=np.int32),
            rng.integers(0, 1000, windows, dtype=np.int32),
        )
        made.folder.mkdir()
        writer = ShardSetWriter(
            made.folder,
            "frames",
            window_fields(FRAMES, FEATURES, dtype),
            classes=CLASSES,
            samples={"train": windows, "heldout": 4},
            samples_per_shard=per_shard,
        )
        arrays = {
            "features": made.features,
            "labels": made.labels,
            "utterance": made.utterance,
            "start": made.start,
        }
        for begin in range(0, windows, step):
            rows = slice(begin, begin + step)
            writer.append("train", **{name: array[rows] for name, array in arrays.items()})
        writer.append("heldout", **{name: array[:4] for name, array in arrays.items()})
        sources = {
            "train": write_lines(made.folder / "train.utt2spk", ["a s", "b s", "c s"]),
            "heldout": write_lines(made.folder / "heldout.utt2spk", ["d t", "e t", "f t"]),
        }
        writer.finish(provenance={"tool": "test"}, counts={}, sources=sources)
        return made

    return write
