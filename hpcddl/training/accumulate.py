"""The gradient of a batch that is larger than what memory holds at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcddl.common.flat import FlatWeights
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.training.evaluate import classification_loss


def backward(
    model: nn.Module,
    features: Tensor,
    labels: Tensor,
    parts: int,
    loss_scale: LossScale | None = None,
) -> Tensor:
    """p.grad <- gradient of the mean loss of features, labels (B, ...); returns that loss.

    The batch goes through the model in `parts` micro-batches, whose sizes differ by one at most.
    With a loss scale s the gradient is s times that, and the loss returned is not.
    """
    shares = [len(part) / len(features) for part in features.tensor_split(parts)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros((), dtype=parameters[0].dtype, device=features.device)
    pieces = zip(features.tensor_split(parts), labels.tensor_split(parts), shares, strict=True)
    for i, (some_features, some_labels, share) in enumerate(pieces, 1):
        loss = share * classification_loss(model(some_features), some_labels)
        total += loss.detach()
        if loss_scale is not None:
            loss = loss_scale.scale(loss)
        if i == parts:
            # The one pass that fires the parameters' hooks, which start communication.
            loss.backward()
        else:
            _add(parameters, torch.autograd.grad(loss, parameters, materialize_grads=True))
    return total


def gradient(model: nn.Module, features: Tensor, labels: Tensor, parts: int) -> Tensor:
    """(d,) in float64: the gradient of `backward`, unscaled, without touching p.grad or hooks."""
    weights = FlatWeights(model)
    total = weights.empty(torch.float64).zero_()
    views = weights.views(total)
    pieces = zip(features.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for some_features, some_labels in pieces:
        share = len(some_features) / len(features)
        loss = share * classification_loss(model(some_features), some_labels)
        found = torch.autograd.grad(loss, weights.parameters, materialize_grads=True)
        torch._foreach_add_(views, [part.double() for part in found])
    return total


def _add(parameters: Sequence[Tensor], gradients: tuple[Tensor, ...]) -> None:
    for p, gradient in zip(parameters, gradients, strict=True):
        # Copied: two biases of one sum are handed the same tensor. Into the weights' own order in
        # memory: fused optimizers and Horovod go through both as they lie there.
        p.grad = torch.empty_like(p).copy_(gradient) if p.grad is None else p.grad.add_(gradient)
