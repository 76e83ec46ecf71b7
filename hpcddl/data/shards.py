"""One split of a shard set as a data set, gathered from memory maps; docs/data-format.md."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.data.block_order import BlockShuffle, block_batches
from hpcddl.data.read_ahead import ReadAhead, paced, preload
from hpcddl.data.sampler import (
    contiguous_batches,
    epoch_permutation,
    kept_permutation,
    rank_batches,
)
from hpcddl.data.split_files import SplitFiles, open_files
from hpcddl.data.values import are_classes, bad_value, first_fault

_AHEAD_BYTES = 32 << 20


class Shards:
    """One split as a data set of `len()` samples with `features` and `labels`.

    Nothing is mapped before the first `gather`, and maps are read-only: an object opened before a
    fork may be used after it. `gather` may be called from several threads.
    """

    contiguous = False

    def __init__(
        self, files: SplitFiles, shuffle: BlockShuffle | None = None, kept: bool = False
    ) -> None:
        manifest = files.manifest
        self.directory = files.directory
        self.split = files.split
        self.manifest = manifest
        self.shuffle = shuffle
        """How `order` mixes the samples; None: one permutation of all."""
        self.kept = kept
        """Whether each learner keeps its part of the samples from epoch to epoch."""
        self.shape = manifest.fields["features"].shape
        """The shape of one sample's features: (T, D) of speech, (3, height, width) of images."""
        self.label_shape = manifest.fields["labels"].shape
        self.classes = manifest.classes
        self.class_counts = np.asarray(manifest.class_counts, np.int64)
        """(C,) labels per class in the *training* split, whichever split this is."""
        self.paths = files.paths
        self.regions = files.regions
        """The places of each shard's datasets in its file."""
        self.ends = files.ends
        """(S,) one past the last sample of each shard."""
        self._firsts = [0, *self.ends.tolist()]
        self._maps: dict[int, tuple[NDArray, NDArray]] = {}
        self._scratch = threading.local()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def order(
        self, seed: int, epoch: int, *, rank: int, ranks: int, batch: int, first_step: int = 0
    ) -> Iterator[NDArray]:
        """The (B,) samples of learner `rank` for each step of an epoch from `first_step` on."""
        if self.shuffle is None and self.kept:
            mine = kept_permutation(len(self), seed, epoch, rank=rank, ranks=ranks)
            return rank_batches(mine, rank=0, ranks=1, batch=batch, first_step=first_step)
        if self.shuffle is None:
            order = epoch_permutation(len(self), seed, epoch)
            return rank_batches(order, rank=rank, ranks=ranks, batch=batch, first_step=first_step)
        part, batches = block_batches(
            self.ends,
            self.shuffle,
            seed,
            epoch,
            rank=rank,
            ranks=ranks,
            batch=batch,
            kept=self.kept,
        )
        rest, pool = part.part(first_step * batch, len(part)), self.shuffle.pool(batch)
        needed = (min(pool + step * batch, len(rest)) for step in count())
        ahead = max(1, _AHEAD_BYTES // self.manifest.sample_bytes)
        read_ahead = ReadAhead(self.preload, rest, ahead)
        return paced(islice(batches, first_step, None), read_ahead, needed)

    def in_order(self, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
        """Every sample once over all ranks, in near-equal contiguous parts."""
        return contiguous_batches(len(self), rank=rank, ranks=ranks, batch=batch)

    def preload(self, first: int, samples: int) -> None:
        """Brings `samples` samples of one shard from `first` on into the page cache."""
        shard = int(self.ends.searchsorted(first, side="right"))
        regions = [self.regions[shard][name] for name in ("features", "labels")]
        row = first - self._firsts[shard]
        sizes = [region.size // region.shape[0] for region in regions]
        preload(
            self.paths[shard],
            [
                (region.offset + row * size, samples * size)
                for region, size in zip(regions, sizes, strict=True)
            ],
        )

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised tensors for `gather`: (B, *shape) float32 or uint8, (B, *labels) int64."""
        stored = self.manifest.fields["features"].dtype
        shape = (batch, *self.shape)
        labels = torch.empty((batch, *self.label_shape), dtype=torch.int64, pin_memory=pin_memory)
        if pin_memory:
            wide = torch.uint8 if stored == "uint8" else torch.float32
            return torch.empty(shape, dtype=wide, pin_memory=True), labels
        return torch.from_numpy(_huge_pages(shape, "u1" if stored == "uint8" else "<f4")), labels

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills the `buffers` with the B samples `indices`, *in index order*.

        Rows come out sorted by index, whatever the order asked for: each shard's rows are then one
        segment of the output, memory is read forwards, and the batch does not depend on how the set
        is cut into shards. The order inside a batch is immaterial to a mean loss.

        Raises:
            IndexError: an index outside 0 .. len-1.
            UserError: a label that is no class, with its shard and place there. Features cost
                more to look at: see `check`.
        """
        order = indices.astype(np.int64)
        order.sort()
        if not len(order):
            return
        # np.take's "clip" needs no copy of the output, but would hide a bad index.
        if order[0] < 0 or order[-1] >= len(self):
            raise IndexError(
                f"indices span {order[0]} .. {order[-1]}, {self.split} holds 0 .. {len(self) - 1}"
            )
        # All of torch's work first: after megabytes of copying its code is cold and costs tenfold.
        features, labels = features_out.numpy(), labels_out.numpy()
        narrow = self._buffer("labels", labels.shape, "<i4")
        half = self.manifest.fields["features"].dtype == "float16"
        if half:
            features = self._buffer("features", features.shape, "<f2")
        begin = 0
        for shard, end in enumerate(order.searchsorted(self.ends).tolist()):
            if begin == end:
                continue
            source, source_labels = self._mapped(shard)
            rows = order[begin:end] - self._firsts[shard]
            source.take(rows, axis=0, out=features[begin:end], mode="clip")
            source_labels.take(rows, axis=0, out=narrow[begin:end], mode="clip")
            begin = end
        if not are_classes(narrow, self.classes):
            self._refuse(order, {"labels": narrow})
        np.copyto(labels, narrow)
        if half:
            # torch widens float16 ten times faster than NumPy or HDF5.
            features_out.copy_(torch.from_numpy(features))

    def batch(self, indices: NDArray) -> tuple[Tensor, Tensor]:
        """The samples `indices`, sorted, as new tensors."""
        features, labels = self.buffers(len(indices))
        self.gather(indices, features, labels)
        return features, labels

    def check(self, indices: NDArray) -> None:
        """Reads the samples `indices` and looks at all of their values.

        Raises:
            UserError: a feature that is not finite, or a label that is no class, with its shard
                and place there.
        """
        features, _ = self.batch(indices)
        self._refuse(np.sort(indices), {"features": features.numpy()})

    def _refuse(self, indices: NDArray, arrays: dict[str, NDArray]) -> None:
        """Raises an error about the first bad value of the samples `indices`, where there is."""
        fault = first_fault(arrays, self.classes)
        if fault is None:
            return
        index = int(indices[fault.sample])
        shard = int(self.ends.searchsorted(index, side="right"))
        hint = f"; `hpcddl data verify {self.directory}` looks at all"
        raise bad_value(self.paths[shard], index - self._firsts[shard], fault.text + hint)

    def _mapped(self, shard: int) -> tuple[NDArray, NDArray]:
        maps = self._maps.get(shard)
        if maps is None:
            regions, path = self.regions[shard], self.paths[shard]
            maps = regions["features"].map(path), regions["labels"].map(path)
            self._maps[shard] = maps
        return maps

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray:
        """A scratch array of this thread; a fresh one would cost its page faults each time."""
        held: NDArray | None = getattr(self._scratch, name, None)
        if held is None or len(held) < shape[0]:
            held = _huge_pages(shape, dtype)
            setattr(self._scratch, name, held)
        return held[: shape[0]]


_HUGE_PAGE_BYTES = 2 << 20


def _huge_pages(shape: tuple[int, ...], dtype: str) -> NDArray:
    """Allocates an array on huge pages; gathering into small pages is up to 30 % slower.

    NumPy asks the kernel for them in arrays of at least 4 MiB, torch does not.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = -(-size // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    room = np.empty(max(whole + _HUGE_PAGE_BYTES, 2 * _HUGE_PAGE_BYTES), np.uint8)
    begin = -room.ctypes.data % _HUGE_PAGE_BYTES
    return room[begin : begin + size].view(dtype).reshape(shape)


def open_split(
    directory: str | os.PathLike[str],
    split: str,
    verify: bool | None = None,
    shuffle: BlockShuffle | None = None,
    kept: bool = False,
) -> Shards:
    """Opens one split of a shard set after checking every file it needs; see `open_files`.

    `shuffle` is how `order` mixes the samples; None: one permutation of all. With `kept` each
    learner keeps its part of them from epoch to epoch.
    """
    return Shards(open_files(directory, split, "features", verify), shuffle, kept)
