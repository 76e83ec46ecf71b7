"""Training data: mapped HDF5 shards, the sampler over them, and the prefetch thread."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.data.shards import Shards, open_split


class Dataset(Protocol):
    """Samples that are gathered by whole batches, never one at a time."""

    features: int  # D
    classes: int  # C
    class_counts: NDArray[np.int64]  # (C,) of the training split

    def __len__(self) -> int: ...

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised host tensors for `batch` samples."""
        ...

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills the tensors with the samples `indices`."""
        ...


def shard_set(*, path: str) -> tuple[Shards, Shards]:
    """The training and held-out splits of the shard set in the folder `path`."""
    return open_split(path, "train"), open_split(path, "heldout")


DATASETS = {"shards": shard_set}
