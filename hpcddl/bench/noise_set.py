"""A shard set of noise to read, and how to make its files cold again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpcddl.data.manifest import window_fields
from hpcddl.data.shard_writer import ShardSetWriter

FRAMES = 21
_CLASSES = 1000
_SHARDS = 4


def write_noise(folder: Path, dimension: int, windows: int, dtype: str) -> NDArray:
    """Writes a training split of `windows` windows; returns its features as they are stored."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((windows, FRAMES, dimension), dtype=np.float32)
    if dtype == "float16":
        features = torch.from_numpy(features).half().numpy()
    labels = rng.integers(0, _CLASSES, (windows, FRAMES), dtype=np.int32)
    zeros = np.zeros(windows, np.int32)
    writer = ShardSetWriter(
        folder,
        "frames",
        window_fields(FRAMES, dimension, dtype),
        classes=_CLASSES,
        samples={"train": windows},
        samples_per_shard=-(-windows // _SHARDS),
    )
    for begin in range(0, windows, 1024):
        rows = slice(begin, begin + 1024)
        writer.append(
            "train",
            features=features[rows],
            labels=labels[rows],
            utterance=zeros[rows],
            start=zeros[rows],
        )
    writer.finish(provenance={"tool": "hpcddl bench loader"}, counts={})
    return features


def drop_pages(folder: Path) -> bool:
    """Asks the kernel to forget the shards, which nobody may have mapped; whether it did."""
    dropped = True
    for path in folder.glob("*.h5"):
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(file, [bytearray(1)], os.fstat(file).st_size // 2, os.RWF_NOWAIT)
            dropped = False
        except BlockingIOError:
            pass
        except OSError:
            dropped = False  # a file system that cannot say what is in memory
        finally:
            os.close(file)
    return dropped
