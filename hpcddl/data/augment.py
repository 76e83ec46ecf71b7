"""Random changes of training images, whole batches at a time, on the images' own device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor
from torch.nn.functional import pad

from hpcddl.common.errors import UserError
from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_first

Augment = Callable[[Tensor, tuple[int, ...]], Tensor]
"""(images (B, C, H, W), key) -> as many images; what is drawn depends on the key alone."""


def none(shape: tuple[int, ...]) -> None:
    """The images as they are."""


def pad_crop_flip(
    shape: tuple[int, ...], *, padding: NonNegativeInt = 4, flip: bool = True
) -> Augment:
    """Each image shifted by up to `padding` pixels, zeros around it, and mirrored half the time.

    What He et al. (2016, sec. 4.2) do on CIFAR, and both papers after them.

    Raises:
        UserError: samples of `shape` that are no images.
    """
    if len(shape) != 3:
        raise UserError(
            f"augment.name=pad_crop_flip: takes images, the data has samples of {shape}"
        )
    _, height, width = shape

    def augment(images: Tensor, key: tuple[int, ...]) -> Tensor:
        batch, channels = images.shape[:2]
        random = np.random.default_rng(key)
        down, right = random.integers(0, 2 * padding + 1, (2, batch, 1))
        rows = down + np.arange(height)
        columns = right + np.arange(width)
        if flip:
            mirrored = random.integers(0, 2, batch, dtype=bool)
            columns[mirrored] = columns[mirrored, ::-1]
        # One gather for crop and mirror.
        places: list[Any] = [
            torch.arange(batch).view(-1, 1, 1, 1),
            torch.arange(channels).view(1, -1, 1, 1),
            torch.from_numpy(rows).view(batch, 1, height, 1),
            torch.from_numpy(columns).view(batch, 1, 1, width),
        ]
        padded = pad(images, (padding,) * 4)
        return padded[tuple(place.to(images.device, non_blocking=True) for place in places)]

    return augment


AUGMENTATIONS = Table(
    {
        "none": none,
        "pad_crop_flip": pad_crop_flip,
    },
    own=partial(with_first, count=1),
)
