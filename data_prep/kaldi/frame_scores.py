"""Scores for every frame of an utterance, by a network that was trained on windows of T frames."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_BATCH_BYTES = 1 << 26  # of a batch's scores


def window_starts(frames: int, window: int, hop: int) -> NDArray[np.int64]:
    """(n,) first frames of windows every `hop` frames, and of one that ends with the utterance.

    Every one of `frames` >= `window` frames is in at least one of them if `hop` <= `window`.
    """
    last = frames - window
    return np.append(np.arange(0, last, hop), last)


@torch.no_grad()
def log_posteriors(
    network: nn.Module, features: Tensor, *, classes: int, window: int, hop: int
) -> Tensor:
    """(U, C) log p(c | t): the normalised geometric mean over the windows W that hold frame t.

    log p(c | t) = mean over W of log p_W(c | t), minus its logsumexp over c. An utterance (U, D)
    shorter than a window is extended by repeating its last frame; the extra scores are dropped.
    """
    frames = len(features)
    if frames < window:
        features = torch.cat([features, features[-1:].expand(window - frames, -1)])
    starts = window_starts(len(features), window, hop)
    sums = features.new_zeros(len(features), classes)
    held = features.new_zeros(len(features), 1)
    batch = max(1, _BATCH_BYTES // (window * classes * sums.element_size()))
    for some in np.split(starts, range(batch, len(starts), batch)):
        scores = network(torch.stack([features[start : start + window] for start in some]))
        # One by one, in order: sums on a GPU would otherwise differ from run to run.
        for start, logs in zip(some, scores.log_softmax(-1), strict=True):
            sums[start : start + window] += logs
            held[start : start + window] += 1
    return (sums[:frames] / held[:frames]).log_softmax(-1)
