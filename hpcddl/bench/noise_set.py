"""A shard set of noise, how to make its files cold again, and how users would read it first."""

import os
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpcddl.data.manifest import window_fields
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.data.shards import Shards

FRAMES = 21
_CLASSES = 1000
_SHARDS = 4


def write_noise(folder: Path, dimension: int, windows: int, dtype: str) -> NDArray:
    """Writes a training split of `windows` windows; returns its features as they are stored."""
    random = np.random.default_rng(0)
    features = random.standard_normal((windows, FRAMES, dimension), dtype=np.float32)
    if dtype == "float16":
        features = torch.from_numpy(features).half().numpy()
    zeros = np.zeros(windows, np.int32)
    writer = ShardSetWriter(
        folder,
        "frames",
        window_fields(FRAMES, dimension, dtype),
        classes=_CLASSES,
        samples={"train": windows},
        samples_per_shard=-(-windows // _SHARDS),
    )
    writer.append(
        "train",
        features=features,
        labels=random.integers(_CLASSES, size=(windows, FRAMES), dtype=np.int32),
        utterance=zeros,
        start=zeros,
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


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Reads one split by h5py, window by window; each worker opens the files that it reads."""

    def __init__(self, shards: Shards) -> None:
        self._paths = shards.paths
        self._ends = np.asarray(shards.ends)
        self._open: dict[int, tuple[h5py.Dataset, h5py.Dataset]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        shard = int(self._ends.searchsorted(index, side="right"))
        if shard not in self._open:
            file = h5py.File(self._paths[shard], "r", locking=False)
            self._open[shard] = file["features"], file["labels"]
        features, labels = self._open[shard]
        row = index - int(self._ends[shard]) + len(labels)
        return torch.from_numpy(features[row]).float(), torch.from_numpy(labels[row]).long()


def h5py_workers(shards: Shards, batch: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Loads whole batches in random order; the workers live as long as the loader."""
    return DataLoader(
        Windows(shards),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
