"""Generates image sets: every class is a coarse pattern, every sample a noisy copy of it.

The samples are a function of seed, shape and number of classes; no two splits share one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.sample_set import Block, SampleSet
from hpcddl.data.manifest import labelled

_BLOCK_BYTES = 1 << 22
_GRID = 4  # a pattern is this many patches high and wide
_NOISE = 32  # grey levels of 256; patterns keep as far from black and white


def split_sizes(samples: int, *splits: str) -> dict[str, int]:
    """`samples` to train on, and a fifth as many in each other split."""
    return {"train": samples, **dict.fromkeys(splits or ("heldout",), max(1, samples // 5))}


def synthetic_images(
    arguments: argparse.Namespace, shape: tuple[int, int, int], names: Sequence[str]
) -> SampleSet:
    """uint8 images of `shape` (channels, H, W), equally many of each class or nearly."""
    sizes = split_sizes(arguments.synthetic)
    return SampleSet(
        kind="images",
        fields=labelled(shape, "uint8"),
        names=names,
        samples=sizes,
        blocks=_images(sizes, shape, len(names), arguments.seed),
        provenance={"synthetic": True, "seed": arguments.seed},
    )


def balanced_labels(samples: int, classes: int, random: np.random.Generator) -> NDArray[np.int32]:
    """(N,) classes in random order, each as often as any other, give or take one."""
    return random.permutation(np.arange(samples, dtype=np.int32) % np.int32(classes))


def _images(
    sizes: dict[str, int], shape: tuple[int, int, int], classes: int, seed: int
) -> Iterator[Block]:
    channels, height, width = shape
    patterns = np.random.default_rng([seed, 0]).integers(
        _NOISE, 256 - _NOISE, (classes, channels, _GRID, _GRID), dtype=np.int16
    )
    rows = np.arange(height)[:, None] * _GRID // height
    columns = np.arange(width) * _GRID // width
    step = max(1, _BLOCK_BYTES // (channels * height * width))
    for number, (split, count) in enumerate(sizes.items(), 1):
        random = np.random.default_rng([seed, number])
        labels = balanced_labels(count, classes, random)
        for begin in range(0, count, step):
            chosen = labels[begin : begin + step]
            images = patterns[chosen][:, :, rows, columns]
            images += random.integers(-_NOISE, _NOISE, images.shape, dtype=np.int16)
            yield split, {"features": images.astype(np.uint8), "labels": chosen}
