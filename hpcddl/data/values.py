"""What the values of a shard set must be: finite numbers, and classes or words of the set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError

CLASSES = ("labels", "tokens")
"""Fields whose values are numbers of classes, or of words, 0 .. C-1."""
ANY_CLASS = 2**31
"""A number of classes that allows every label but negative ones."""


class Fault(NamedTuple):
    """The first sample of some with a bad value, what is wrong, and how many samples have one."""

    sample: int
    text: str
    bad: int


def first_fault(arrays: Mapping[str, NDArray], classes: int) -> Fault | None:
    """Finds the first bad value of n samples, `arrays` of (n, *shape); None where all are good.

    Features must be finite, labels and tokens 0 .. C-1.
    """
    faults = (_fault(name, array, classes) for name, array in arrays.items())
    return min(filter(None, faults), default=None)


def bad_value(path: Path, sample: int, text: str) -> UserError:
    """Makes the error of a bad value in sample `sample` of the shard `path`, counted from 0."""
    split = path.name.rpartition("-")[0]
    return UserError(f"{path}: split {split}, sample {sample} of this shard: {text}")


def are_classes(values: NDArray[np.int32], classes: int) -> bool:
    """Whether all of a contiguous array of int32 are 0 .. C-1; a few microseconds for a batch."""
    # One pass: as unsigned numbers, negative ones are the largest.
    return not values.size or bool(values.view(np.uint32).max() < classes)


def are_finite(values: NDArray) -> bool:
    """Whether all of a contiguous array of floating-point numbers are finite."""
    if values.dtype == np.float16 and values.size:
        # As integers, which is twenty times faster: infinity and NaN are the largest exponents.
        return bool((values.view(np.uint16) & 0x7FFF).max() < 0x7C00)
    return bool(np.isfinite(values).all())


def _fault(name: str, array: NDArray, classes: int) -> Fault | None:
    array = np.ascontiguousarray(array)
    if name in CLASSES:
        if are_classes(array.astype(np.int32, copy=False), classes):
            return None
        bad, allowed = (array < 0) | (array >= classes), f"0 .. {classes - 1}"
    elif array.dtype.kind != "f" or are_finite(array):
        return None
    else:
        bad, allowed = ~np.isfinite(array), "finite"
    place = np.argwhere(bad)[0].tolist()
    where = f"{name.removesuffix('s')}{place[1:] or ''}"
    text = f"{where} is {array[tuple(place)]}; must be {allowed}"
    return Fault(place[0], text, int(bad.reshape(len(bad), -1).any(axis=1).sum()))
