"""What a network is given of a batch."""

import torch
from torch import Tensor


def network_input(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of words (int64) as they are; speech, vectors and uint8 pixels in `dtype`."""
    return features if features.dtype == torch.int64 else features.to(dtype)
