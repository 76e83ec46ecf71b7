"""The loss of a network on a sample of a data set, on one rank by itself."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from hpcddl.data import Dataset
from hpcddl.data.network_input import network_input
from hpcddl.data.sampler import epoch_permutation


@dataclass(frozen=True)
class Sample:
    """Some samples of a data set, in memory on the network's device."""

    features: Tensor  # (N, ...)
    labels: Tensor  # (N, ...)
    available: int  # samples that the data set has

    def __len__(self) -> int:
        return len(self.features)

    def batches(self, batch: int) -> Generator[tuple[Tensor, Tensor]]:
        """Splits it into the fewest batches of at most `batch`; their sizes differ by 1 at most."""
        parts = ceil(len(self) / batch)
        yield from zip(
            self.features.tensor_split(parts), self.labels.tensor_split(parts), strict=True
        )


def draw_sample(dataset: Dataset, most: int, seed: int, device: torch.device) -> Sample:
    """At most `most` samples without replacement, by `seed` alone: the same on every rank.

    Raises:
        UserError: one has a feature that is not finite, or a label that is no class.
    """
    chosen = np.sort(epoch_permutation(len(dataset), seed, 0)[:most])
    features, labels = dataset.buffers(len(chosen))
    dataset.gather(chosen, features, labels)
    if features.is_floating_point() and not features.isfinite().all():
        dataset.check(chosen)
    return Sample(features.to(device), labels.to(device), len(dataset))


@torch.no_grad()
def loss_and_error(network: nn.Module, sample: Sample, batch: int) -> tuple[float, float]:
    """Means over every prediction, summed in float64: cross-entropy in nats, error from 0 to 1.

    `network` is in the mode that it is to be judged in. Windows of a text start from zero states.
    """
    dtype = next(network.parameters()).dtype
    sums = torch.zeros(2, dtype=torch.float64, device=sample.labels.device)
    for features, window_labels in sample.batches(batch):
        scores = network(network_input(features, dtype)).flatten(0, -2)
        labels = window_labels.flatten()
        losses = cross_entropy(scores, labels, reduction="none")
        sums += torch.stack(
            [losses.sum(dtype=torch.float64), (scores.argmax(-1) != labels).sum().double()]
        )
    loss, error = (sums / sample.labels.numel()).tolist()
    return loss, error


def batch_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Lists the batch-norm layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, batch norm uses each batch's statistics, and does not change its running ones.

    All else, such as dropout, is in evaluation mode as before.
    """
    layers = batch_norm_layers(model)
    saved = [(layer.running_mean, layer.running_var) for layer in layers]
    for layer in layers:
        layer.running_mean = layer.running_var = None
    try:
        yield
    finally:
        for layer, (mean, var) in zip(layers, saved, strict=True):
            layer.running_mean, layer.running_var = mean, var
