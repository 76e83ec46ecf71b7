"""MNIST's idx files: a magic number, the dimensions (big-endian), then the bytes (uint8)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpcddl.common.errors import UserError


def read_shape(file: BinaryIO, where: str, dimensions: int) -> tuple[int, ...]:
    """Reads the shape that a file states, and stops at the first value.

    Raises UserError for another kind of file.
    """
    head = file.read(4 + 4 * dimensions)
    magic = 0x0800 + dimensions  # 08: unsigned bytes
    got = int.from_bytes(head[:4], "big")
    if len(head) < 4 or got != magic:
        raise UserError(
            f"{where}: begins with 0x{head[:4].hex()}, expected 0x{magic:08x}: "
            f"idx with {dimensions} dimensions of unsigned bytes"
        )
    if len(head) < 4 + 4 * dimensions:
        raise UserError(f"{where}: ends in its header, at byte {len(head)}")
    return struct.unpack(f">{dimensions}I", head[4:])


def read_blocks(
    file: BinaryIO, where: str, shape: tuple[int, ...], block: int
) -> Iterator[NDArray[np.uint8]]:
    """The values in arrays of at most `block` along the first dimension.

    Raises UserError where there are fewer or more than `shape` says.
    """
    one = prod(shape[1:])
    for begin in range(0, shape[0], block):
        count = min(block, shape[0] - begin)
        data = file.read(count * one)
        if len(data) < count * one:
            raise UserError(
                f"{where}: {begin * one + len(data)} bytes after the header, which says "
                f"{' x '.join(map(str, shape))}: cut short"
            )
        yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
    if file.read(1):
        raise UserError(f"{where}: goes on after the {' x '.join(map(str, shape))} bytes it states")
