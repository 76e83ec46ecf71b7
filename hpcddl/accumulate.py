"""The gradient of a batch that is larger than what memory holds at once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcddl.evaluate import classification_loss
from hpcddl.loss_scale import LossScale


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


def _add(parameters: Sequence[Tensor], gradients: tuple[Tensor, ...]) -> None:
    for p, gradient in zip(parameters, gradients, strict=True):
        # Cloned: two biases of one sum are handed the same tensor.
        p.grad = gradient.clone() if p.grad is None else p.grad.add_(gradient)
