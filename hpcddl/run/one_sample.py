"""Tries a network on one sample, before training: what does not fit is said in one line."""

import torch
from torch import nn

from hpcddl.common.errors import UserError
from hpcddl.data import Dataset
from hpcddl.data.network_input import network_input
from hpcddl.training.batch_norm import takes_one_sample


def check_scores(model: nn.Module, name: str, dataset: Dataset) -> None:
    """Refuses a network whose scores are not one vector for each of a sample's labels.

    Args:
        name: of the network, as the recipe calls it.

    Raises:
        UserError: such as one score vector for a window of frames, each of which has its label.
    """
    features, labels = dataset.buffers(1)
    first, was_training = next(model.parameters()), model.training
    with torch.no_grad():
        scores = model.eval()(network_input(features.zero_(), first.dtype).to(first.device))
    model.train(was_training)
    given, needed = tuple(scores.shape[1:]), (*labels.shape[1:], dataset.classes)
    if given != needed:
        raise UserError(
            f"model.name={name}: gives scores of shape {given} for a sample of {dataset.shape}; "
            f"must be {needed} for the labels of this data; fix: another model"
        )


def check_micro_batch(
    model: nn.Module, name: str, shape: tuple[int, ...], local_batch: int, accumulate: int
) -> None:
    """Refuses micro-batches of one sample where batch norm needs more than that.

    Raises:
        UserError: a local batch, or its smallest micro-batch, is too small for the network.
    """
    if local_batch // accumulate == 1 and not takes_one_sample(model, shape):
        raise UserError(
            f"accumulate={accumulate}: cuts the local batch of {local_batch} down to a single "
            f"sample, of which the batch norm of {name} has no variance; must leave 2 or more; "
            "fix: a larger global_batch, or fewer learners or micro-batches"
        )
