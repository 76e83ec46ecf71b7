"""Loss and error of the model on a data set, exact over all ranks."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpcddl.cluster.world import World
from hpcddl.data import Dataset
from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.models import hidden_state
from hpcddl.training.bad_data import check_samples


class Interrupted(Exception):
    """An evaluation was abandoned on all ranks, because some rank was told to stop."""


@dataclass(frozen=True)
class Evaluation:
    """Means over every prediction (a window of T frames makes T), with what to compare them to."""

    loss: float  # nats
    accuracy: float  # 0 .. 1
    prior_loss: float  # nats: always answering with the training set's class frequencies
    prior_accuracy: float  # always answering with the most frequent class
    predictions: int
    perplexity: float | None = None  # exp(loss), of a stream of words
    loss_averaged_statistics: float | None = None  # where batch norm's were recomputed for `loss`
    top5_accuracy: float | None = None  # where asked for, and there are more than 5 classes


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
    dataset: Dataset,
    batch: int,
    prior: Tensor,
    world: World,
    top5: bool = False,
    told_to_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Evaluates every sample of `dataset` once, divided among the ranks. Collective.

    Sums are in float64. In streams of text each row continues from the state that its last
    window left, at first zeros. Afterwards `model` carries the state that it had before.

    Args:
        loader: of `dataset`.
        prior: (C,) log class frequencies of the training set.
        top5: whether to count labels among the five highest scores too, of more than 5 classes.
        told_to_stop: asked before each batch.

    Raises:
        Interrupted: a rank was told to stop; the others have finished their share.
        AgreedError: the loss is not finite because of a sample whose features are not.
    """
    was_training = model.training
    model.eval()
    weights = next(model.parameters())
    prior = prior.to(weights.device)
    common = int(prior.argmax())
    top5 = top5 and len(prior) > 5
    sums = torch.zeros(6, dtype=torch.float64, device=weights.device)
    mine = dataset.in_order(rank=world.rank, ranks=world.size, batch=batch)
    stopped = False
    with hidden_state.aside(model, dataset.contiguous), closing(loader.batches(mine)) as batches:
        for features, window_labels in batches:
            if stopped := told_to_stop():
                break
            scores = model(network_input(features, weights.dtype)).flatten(0, -2)
            labels = window_labels.flatten()
            sums += torch.stack(
                [
                    cross_entropy(scores, labels, reduction="none").sum(dtype=torch.float64),
                    (scores.argmax(-1) == labels).sum().double(),
                    -prior[labels].sum(),
                    (labels == common).sum().double(),
                    _among_best_five(scores, labels) if top5 else sums.new_zeros(()),
                    sums.new_tensor(len(labels)),
                ]
            )
    model.train(was_training)
    total = np.append(sums.cpu().numpy(), stopped)
    world.comm.Allreduce(MPI.IN_PLACE, total, MPI.SUM)
    loss, right, prior_loss, prior_right, among_five, count, interrupted = total.tolist()
    if interrupted:
        raise Interrupted
    if not math.isfinite(loss):
        shares = dataset.in_order(rank=world.rank, ranks=world.size, batch=batch)
        check_samples(dataset, shares, world)
    return Evaluation(
        *(loss / count, right / count, prior_loss / count, prior_right / count, int(count)),
        perplexity=_perplexity(loss / count) if dataset.contiguous else None,
        top5_accuracy=among_five / count if top5 else None,
    )


def _perplexity(loss: float) -> float:
    """exp(loss), infinite where that is beyond float64."""
    return float(torch.tensor(loss, dtype=torch.float64).exp())


def _among_best_five(scores: Tensor, labels: Tensor) -> Tensor:
    """How many of (N,) `labels` are among the five highest of their (N, C) scores, in float64."""
    return (scores.topk(5).indices == labels[:, None]).any(-1).sum(dtype=torch.float64)
