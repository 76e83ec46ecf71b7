"""Packing: what a message decodes to, for tensors of any size and any values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcddl.communication.compression import BLOCK, COMPRESSORS, Compressor, Sign, Uniform8

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
VALUES = st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1e-44, -1e-44])
DTYPES = st.sampled_from([np.float32, np.float64])


def through(compressor: Compressor, vector: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    out = torch.empty_like(vector)
    compressor.decode(compressor.encode(vector, sizes), sizes, out)
    return out


@given(st.data(), SIZES, DTYPES)
def test_sign_keeps_every_sign_and_each_tensors_mean_size(
    data: st.DataObject, sizes: list[int], dtype: type
) -> None:
    """mean |v| * sign(v) per tensor, where zero, negative or not, counts as +."""
    values = data.draw(arrays.arrays(dtype, sum(sizes), elements=VALUES))
    decoded = through(Sign(), torch.from_numpy(values), sizes).numpy()
    cuts = np.cumsum(sizes)[:-1]
    pieces = zip(np.split(values, cuts), np.split(decoded, cuts), strict=True)
    for piece, out in pieces:
        scale = np.abs(piece).mean(dtype=np.float64)
        expected = np.where(piece >= 0, scale, -scale)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-44)


@given(st.data(), SIZES, DTYPES)
def test_eight_bits_are_within_half_a_level(
    data: st.DataObject, sizes: list[int], dtype: type
) -> None:
    """|decoded - v| <= max |v| / 254 per tensor, to rounding; zero stays zero."""
    values = data.draw(arrays.arrays(dtype, sum(sizes), elements=VALUES))
    decoded = through(Uniform8(), torch.from_numpy(values), sizes).numpy()
    assert (decoded[values == 0] == 0).all()
    cuts = np.cumsum(sizes)[:-1]
    pieces = zip(np.split(values, cuts), np.split(decoded, cuts), strict=True)
    for piece, out in pieces:
        top = np.abs(piece).max().astype(np.float64)
        # Below the normal range a level itself is rounded, by up to half the smallest number.
        slack = 127 * float(np.finfo(dtype).smallest_subnormal)
        assert np.abs(out.astype(np.float64) - piece).max() <= top / 254 * 1.001 + slack


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "none"])
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_blocks_leave_no_seam(name: str, size: int) -> None:
    """A tensor longer than a block is coded as one of the same values, one scale for all."""
    compressor = COMPRESSORS[name]()
    assert compressor is not None
    vector = torch.from_numpy(np.random.default_rng(4).normal(size=size))
    scale = vector.abs().mean() if name == "sign" else vector.abs().max() / 127
    signs = torch.where(vector >= 0, 1.0, -1.0).double()
    levels = signs if name == "sign" else torch.round(vector / scale)
    torch.testing.assert_close(through(compressor, vector, [size]), levels * scale)


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "none"])
def test_what_is_not_a_number_stays_visible(name: str) -> None:
    """A diverged learner does not look like a converging one: its tensor decodes to NaN."""
    compressor = COMPRESSORS[name]()
    assert compressor is not None
    out = through(compressor, torch.tensor([1.0, torch.nan, 2.0, 3.0]), [3, 1])
    assert out[:3].isnan().all()
    assert out[3] == 3


@given(SIZES)
def test_a_messages_length_is_told_beforehand(sizes: list[int]) -> None:
    """Sign: ceil(size / 8) bytes and one float per tensor; uniform8: size bytes and one float."""
    vector = torch.zeros(sum(sizes))
    for compressor, per_tensor in ((Sign(), lambda n: -(-n // 8)), (Uniform8(), lambda n: n)):
        length = len(compressor.encode(vector, sizes))
        assert length == compressor.message_bytes(sizes, vector.dtype)
        assert length == 4 * len(sizes) + sum(map(per_tensor, sizes))
