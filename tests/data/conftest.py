"""A small shard set with known contents."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hpcddl.data.shard_writer import ShardSetWriter

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
            frames=FRAMES,
            features=FEATURES,
            classes=CLASSES,
            dtype=dtype,
            windows={"train": windows, "heldout": 4},
            windows_per_shard=per_shard,
        )
        arrays = (made.features, made.labels, made.utterance, made.start)
        for begin in range(0, windows, step):
            writer.append("train", *(array[begin : begin + step] for array in arrays))
        writer.append("heldout", *(array[:4] for array in arrays))
        writer.finish(
            utterances={"train": ["a", "b", "c"], "heldout": ["d", "e", "f"]},
            speakers={"train": ["s"], "heldout": ["t"]},
            utterance_speaker={"train": [0, 0, 0], "heldout": [0, 0, 0]},
            provenance={"tool": "test"},
            counts={},
        )
        return made

    return write
