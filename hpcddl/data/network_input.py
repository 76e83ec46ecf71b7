"""Converts a batch to what a network takes."""

import torch
from torch import Tensor


def network_input(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns word numbers (int64) unchanged; speech, vectors and uint8 pixels in `dtype`."""
    return features if features.dtype == torch.int64 else features.to(dtype)
