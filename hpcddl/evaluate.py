"""Loss and error of the model on a data set, exact over all ranks."""

from dataclasses import dataclass

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import contiguous_batches
from hpcddl.world import World


@dataclass(frozen=True)
class Evaluation:
    """Means over every prediction (a window of T frames makes T), with what to compare them to."""

    loss: float  # nats
    accuracy: float  # 0 .. 1
    prior_loss: float  # nats: always answering with the training set's class frequencies
    prior_accuracy: float  # always answering with the most frequent class
    predictions: int
    loss_averaged_statistics: float | None = None  # where batch norm's were recomputed for `loss`


def classification_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of scores (..., C) against labels (...)."""
    return cross_entropy(scores.flatten(0, -2), labels.flatten())


def log_prior(class_counts: np.ndarray) -> Tensor:
    """(C,) log frequencies, one added to every count: an unseen class is rare, not impossible."""
    counts = torch.as_tensor(class_counts, dtype=torch.float64) + 1
    return torch.log(counts / counts.sum())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Prefetcher,
    samples: int,
    batch: int,
    prior: Tensor,
    world: World,
) -> Evaluation:
    """Every one of `samples` windows once, shared out over the ranks; sums in float64.

    Args:
        prior: (C,) log class frequencies of the training set.
    """
    was_training = model.training
    model.eval()
    weights = next(model.parameters())
    prior = prior.to(weights.device)
    common = int(prior.argmax())
    sums = torch.zeros(5, dtype=torch.float64, device=weights.device)
    mine = contiguous_batches(samples, rank=world.rank, ranks=world.size, batch=batch)
    for features, window_labels in loader.batches(mine):
        scores = model(features.to(weights.dtype)).flatten(0, -2)
        labels = window_labels.flatten()
        sums += torch.stack(
            [
                cross_entropy(scores, labels, reduction="none").sum(dtype=torch.float64),
                (scores.argmax(-1) == labels).sum().double(),
                nll_loss(prior.expand(len(labels), -1), labels, reduction="sum"),
                (labels == common).sum().double(),
                sums.new_tensor(len(labels)),
            ]
        )
    model.train(was_training)
    total = sums.cpu().numpy()
    world.comm.Allreduce(MPI.IN_PLACE, total, MPI.SUM)
    loss, right, prior_loss, prior_right, count = total.tolist()
    return Evaluation(
        loss / count, right / count, prior_loss / count, prior_right / count, int(count)
    )
