"""Text as a data set: a split's tokens, read as contiguous streams; docs/data-format.md."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.common.errors import UserError
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.split_files import SplitFiles, open_files
from hpcddl.data.values import are_classes, bad_value, first_fault


class TokenWindows:
    """A split's stream of tokens, cut into windows of `bptt` tokens; labels are the next tokens.

    A language model carries its hidden state from one window to the next (paper B, appendix C.5):
    `order` gives every row of every learner a contiguous part of the stream. Nothing is mapped
    before the first `gather`, which may be called from several threads.
    """

    contiguous = True

    def __init__(self, files: SplitFiles, bptt: int, streams: int) -> None:
        self.bptt = bptt
        self.streams = streams
        """That `in_order` reads side by side, over all ranks."""
        self.shape = (bptt,)
        self.classes = files.manifest.classes
        """C: the words of the vocabulary."""
        self.class_counts = np.asarray(files.manifest.class_counts, np.int64)
        """(C,) how often each word occurs in the *training* split, whichever split this is."""
        self.tokens = int(files.ends[-1])
        self._files = files
        self._maps: dict[int, NDArray] = {}
        if not len(self):
            raise UserError(
                f"{files.directory}: split {files.split!r} holds {self.tokens} tokens, "
                f"a window of bptt={bptt} takes {bptt + 1}"
            )

    def __len__(self) -> int:
        # Of the last window the labels reach one token further.
        return (self.tokens - 1) // self.bptt

    def order(
        self, seed: int, epoch: int, *, rank: int, ranks: int, batch: int, first_step: int = 0
    ) -> Iterator[NDArray]:
        """The (B,) windows of learner `rank` for each step of an epoch from `first_step` on.

        The split is cut into nB streams of equally many windows, learner j has the B streams from
        jB on, and row b of step k is window k of its stream. The same in every epoch.
        """
        steps = steps_per_epoch(len(self), ranks, batch)
        starts = np.arange(rank * batch, (rank + 1) * batch, dtype=np.int64) * steps
        for step in range(first_step, steps):
            yield starts + step

    def in_order(self, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
        """Every window once over all ranks: at each step one of each stream in this rank's share.

        The streams are the same on any number of ranks. They have N // streams windows or one
        more; the longer ones are the first rows. `batch` has no effect: a row is a stream.
        """
        bounds = np.arange(self.streams + 1, dtype=np.int64) * len(self) // self.streams
        mine = slice(self.streams * rank // ranks, self.streams * (rank + 1) // ranks)
        starts, lengths = bounds[:-1][mine], np.diff(bounds)[mine]
        by_length = np.argsort(-lengths, kind="stable")
        starts, lengths = starts[by_length], lengths[by_length]
        for step in range(lengths.max(initial=0)):
            yield starts[lengths > step] + step

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised tensors for `gather`: both (B, bptt) int64."""
        shape = (batch, self.bptt)
        tokens = torch.empty(shape, dtype=torch.int64, pin_memory=pin_memory)
        return tokens, torch.empty(shape, dtype=torch.int64, pin_memory=pin_memory)

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills the `buffers` with the windows `indices` and their next tokens, in that order.

        Raises:
            IndexError: an index outside 0 .. len-1.
            UserError: a token that is no word, with its shard and place there.
        """
        if not len(indices):
            return
        first, last = int(indices.min()), int(indices.max())
        if first < 0 or last >= len(self):
            split = self._files.split
            raise IndexError(f"indices span {first} .. {last}, {split} holds 0 .. {len(self) - 1}")
        begins = indices.astype(np.int64)[:, None] * self.bptt
        places = begins + np.arange(self.bptt + 1)
        rows = np.empty(places.shape, np.int32)
        shards = self._files.ends.searchsorted(places, side="right")
        for shard in np.unique(shards).tolist():
            source = self._mapped(shard)
            # A window may lie in two shards, or in more.
            here = shards == shard
            rows[here] = source[places[here] - (self._files.ends[shard] - len(source))]
        if not are_classes(rows, self.classes):
            self._refuse(places.ravel(), rows.ravel())
        np.copyto(features_out.numpy(), rows[:, :-1])
        np.copyto(labels_out.numpy(), rows[:, 1:])

    def batch(self, indices: NDArray) -> tuple[Tensor, Tensor]:
        """The windows `indices` and their next tokens, as new tensors."""
        features, labels = self.buffers(len(indices))
        self.gather(indices, features, labels)
        return features, labels

    def check(self, indices: NDArray) -> None:
        """Reads the windows `indices`, whose tokens `gather` looks at; raises its UserError."""
        self.batch(indices)

    def _refuse(self, places: NDArray, tokens: NDArray) -> None:
        """Raises an error about the first bad one of `tokens`, at `places` of the split."""
        fault = first_fault({"tokens": tokens}, self.classes)
        assert fault is not None
        place = int(places[fault.sample])
        shard = int(self._files.ends.searchsorted(place, side="right"))
        first = int(self._files.ends[shard - 1]) if shard else 0
        hint = f"; `hpcddl data verify {self._files.directory}` looks at all"
        raise bad_value(self._files.paths[shard], place - first, fault.text + hint)

    def _mapped(self, shard: int) -> NDArray:
        tokens = self._maps.get(shard)
        if tokens is None:
            region = self._files.regions[shard]["tokens"]
            tokens = self._maps[shard] = region.map(self._files.paths[shard])
        return tokens


def open_text(
    directory: str | os.PathLike[str],
    split: str,
    bptt: int,
    streams: int = 1,
    verify: bool | None = None,
) -> TokenWindows:
    """Opens one split of a text after checking every file it needs; see `open_files`.

    Raises UserError also for a split of fewer tokens than one window takes.
    """
    return TokenWindows(open_files(directory, split, "tokens", verify), bptt, streams)
