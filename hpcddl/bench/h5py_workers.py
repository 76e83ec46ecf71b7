"""What users write first: torch's DataLoader, worker processes and h5py, window by window."""

from __future__ import annotations

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpcddl.data.shards import Shards


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """One split, read by h5py; files are opened in the worker that reads them."""

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
    """Whole batches in random order; the workers live as long as the loader."""
    return DataLoader(
        Windows(shards),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
