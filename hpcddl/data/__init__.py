"""Training data: mapped HDF5 shards, the sampler over them, and the prefetch thread."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from hpcddl.data.block_order import BlockShuffle
from hpcddl.data.identity import Fingerprint, check_fingerprint
from hpcddl.data.shards import Shards, open_split
from hpcddl.data.text import TokenWindows, open_text


class Dataset(Protocol):
    """Samples that are gathered by whole batches, never one at a time."""

    shape: tuple[int, ...]  # of one sample's features
    classes: int  # C
    class_counts: NDArray[np.int64]  # (C,) of the training split
    contiguous: bool  # a stream of words: each row of a batch goes on in the next one

    def __len__(self) -> int: ...

    def order(
        self, seed: int, epoch: int, *, rank: int, ranks: int, batch: int, first_step: int = 0
    ) -> Iterator[NDArray]:
        """The (B,) samples of learner `rank` for each step of an epoch from `first_step` on.

        A function of its arguments; over all ranks disjoint, equally many, none twice.
        """
        ...

    def in_order(self, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
        """Every sample once over all ranks, for evaluation: the (B,) samples of `rank` each step.

        Where the set is `contiguous`, rows that have come to their stream's end are the last ones.
        """
        ...

    def buffers(self, batch: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Uninitialised host tensors for `batch` samples."""
        ...

    def gather(self, indices: NDArray, features_out: Tensor, labels_out: Tensor) -> None:
        """Fills the tensors with the samples `indices`.

        Raises:
            UserError: a label or word that is none of the C, with its shard and place there.
        """
        ...

    def check(self, indices: NDArray) -> None:
        """Looks at all values of the samples `indices`.

        Raises:
            UserError: a feature that is not finite, or a label or word as above.
        """
        ...


def shard_set(
    *,
    path: str,
    shuffle: Literal["exact", "blocks"] = "exact",
    reshuffle: Literal["globally", "never"] = "globally",
    buffer: Annotated[int, Field(ge=0)] = BlockShuffle.buffer,
    block: Annotated[int, Field(ge=1)] = BlockShuffle.block,
    fingerprint: Fingerprint = None,
) -> tuple[Shards, Shards]:
    """The training and held-out splits of the shard set in the folder `path`.

    Args:
        shuffle: `exact` draws every batch from the whole set; `blocks` is for sets larger than
            memory: `block` consecutive samples are read at once and mixed in a `buffer` of samples.
        reshuffle: `never` draws each learner's part of the set once, and epochs permute the part
            (paper B, app. F).
        fingerprint: of the set that it must be (`hpcddl data info`); a run writes its own here.
            None or `any`: any set.
    """
    check_fingerprint(path, fingerprint)
    blocks = BlockShuffle(block, buffer) if shuffle == "blocks" else None
    train = open_split(path, "train", shuffle=blocks, kept=reshuffle == "never")
    return train, open_split(path, "heldout")


def text(
    *,
    path: str,
    bptt: Annotated[int, Field(ge=1)] = 30,
    heldout_streams: Annotated[int, Field(ge=1)] = 16,
    fingerprint: Fingerprint = None,
) -> tuple[TokenWindows, TokenWindows]:
    """The training and held-out text in the folder `path`, `bptt` tokens a window (paper B: 30).

    Args:
        heldout_streams: what the held-out text is cut into, whatever the number of learners. Only
            the first words of each stream are predicted without all that comes before them.
        fingerprint: of the set that it must be; None or `any`: any set.
    """
    check_fingerprint(path, fingerprint)
    return open_text(path, "train", bptt), open_text(path, "heldout", bptt, heldout_streams)


DATASETS: dict[str, Callable[..., Any]] = {"shards": shard_set, "text": text}
