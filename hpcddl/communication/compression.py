"""How a vector (d,) becomes a short message: one float scale per tensor, then packed entries."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_first

BLOCK = 1 << 16  # entries packed at a time: what lies between two passes stays in the cache

Message = NDArray[np.uint8]


class Compressor:
    """Encodes a vector tensor by tensor: all scales in the vector's own precision, then the packs.

    A message's length depends on the tensors' sizes alone, so all learners' are equally long. A
    subclass says how one tensor is packed.
    """

    def packed_bytes(self, size: int) -> int:
        """What `size` entries of one tensor take, without the scale."""
        raise NotImplementedError

    def pack(self, piece: Tensor, out: Message) -> float:
        """out <- the entries of one tensor (size,), packed; returns their scale."""
        raise NotImplementedError

    def unpack(self, packed: Message, scale: float, out: Tensor) -> None:
        """out (size,) <- the entries that `pack` left."""
        raise NotImplementedError

    def message_bytes(self, sizes: Sequence[int], dtype: torch.dtype) -> int:
        """The length of a message about tensors of these sizes."""
        return len(sizes) * dtype.itemsize + sum(map(self.packed_bytes, sizes))

    def encode(self, vector: Tensor, sizes: Sequence[int]) -> Message:
        """The message about `vector` (d,) on the CPU, made of tensors of these sizes."""
        message = np.empty(self.message_bytes(sizes, vector.dtype), np.uint8)
        scales, packs = self._parts(message, sizes, vector)
        for i, (piece, packed) in enumerate(zip(vector.split(list(sizes)), packs, strict=True)):
            scales[i] = self.pack(piece, packed)
        return message

    def decode(self, message: Message, sizes: Sequence[int], out: Tensor) -> None:
        """out (d,) on the CPU <- what every learner understands from the message."""
        scales, packs = self._parts(message, sizes, out)
        pieces = out.split(list(sizes))
        for piece, packed, scale in zip(pieces, packs, scales.tolist(), strict=True):
            self.unpack(packed, scale, piece)

    def _parts(
        self, message: Message, sizes: Sequence[int], like: Tensor
    ) -> tuple[NDArray[np.floating], list[Message]]:
        """Views of a message: its scales, and each tensor's pack."""
        ends = np.cumsum([len(sizes) * like.dtype.itemsize, *map(self.packed_bytes, sizes)])
        header, *packs = np.split(message, ends[:-1])
        return header.view(like[:0].numpy().dtype), packs


class Sign(Compressor):
    """scale * sign(v), one bit per entry; the scale is the tensor's L1 norm / size (B alg. 3, 4).

    A bit has no zero: sign(0) counts as +. A pack is padded to whole bytes.
    """

    def packed_bytes(self, size: int) -> int:
        return -(-size // 8)

    def pack(self, piece: Tensor, out: Message) -> float:
        total = 0.0
        for begin, block in _blocks(piece):
            bits = np.packbits(block.numpy() >= 0)
            out[begin // 8 : begin // 8 + len(bits)] = bits
            total += float(torch.linalg.vector_norm(block, 1))
        return total / len(piece)

    def unpack(self, packed: Message, scale: float, out: Tensor) -> None:
        for begin, block in _blocks(out):
            bits = np.unpackbits(packed[begin // 8 :], count=len(block))
            block.copy_(torch.from_numpy(bits)).mul_(2).sub_(1).mul_(scale)


class Uniform8(Compressor):
    """scale * q with q a whole number from -127 to 127; the scale is max |v| / 127."""

    def packed_bytes(self, size: int) -> int:
        return size

    def pack(self, piece: Tensor, out: Message) -> float:
        scale = float(torch.linalg.vector_norm(piece, torch.inf) / 127)
        entries = torch.from_numpy(out.view(np.int8))
        for begin, block in _blocks(piece):
            # Clamped: a scale that is barely representable may be rounded by half.
            levels = (block / scale).round_().clamp_(-127, 127) if scale else torch.zeros(1)
            entries[begin : begin + len(block)] = levels
        return scale

    def unpack(self, packed: Message, scale: float, out: Tensor) -> None:
        out.copy_(torch.from_numpy(packed.view(np.int8))).mul_(scale)


def none() -> None:
    """Nothing is compressed."""


COMPRESSORS = Table(
    {
        "none": none,
        "sign": Sign,
        "uniform8": Uniform8,
    },
    own=partial(with_first, count=0),
)


def _blocks(piece: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where each block begins, a multiple of 8, and the block."""
    begins = range(0, len(piece), BLOCK)
    return zip(begins, piece.split(BLOCK), strict=True)
