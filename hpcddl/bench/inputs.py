"""What several benchmarks work on: random windows of speech and images, and learners in pairs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddl.data.known import KNOWN

WINDOW = KNOWN["swb300"].shape  # (21, 260): frames, features
IMAGES = KNOWN["cifar10"]


def random_windows(batch: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws features (batch, 21, 260) from N(0, 1) and a class of each frame (batch, 21)."""
    draws = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, *WINDOW, generator=draws)
    return features, torch.randint(classes, (batch, WINDOW[0]), generator=draws)


def random_images(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws uint8 pixels (batch, 3, 32, 32) and a class of each image (batch,)."""
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (batch, *IMAGES.shape), dtype=torch.uint8, generator=draws)
    return pixels, torch.randint(IMAGES.classes, (batch,), generator=draws)


def pairs(ranks: int) -> NDArray[np.float64]:
    """Makes the mixing matrix (n, n) of ranks 0 and 1, 2 and 3, ...: each takes half of both."""
    return np.kron(np.eye(ranks // 2), np.full((2, 2), 0.5))
