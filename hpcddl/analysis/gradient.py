"""The loss over a whole data set, and its gradient, exact over all ranks."""

import torch
from mpi4py import MPI
from torch import Tensor, nn

from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import contiguous_batches
from hpcddl.evaluate import classification_loss
from hpcddl.flat import FlatWeights
from hpcddl.world import World


def overall_gradient(
    model: nn.Module, loader: Prefetcher, samples: int, batch: int, world: World
) -> tuple[float, Tensor]:
    """L(w) in nats and its gradient g (d,), float64, in evaluation mode. Collective.

    All ranks hold the same weights w. `samples` samples are shared out over the ranks and taken
    `batch` at a time, sums in float64. Neither p.grad nor its hooks nor random numbers are touched.
    """
    was_training = model.training
    model.eval()
    weights = FlatWeights(model)
    total = torch.zeros(weights.size + 2, dtype=torch.float64, device=weights.device)
    views = weights.views(total[2:])
    for features, labels in loader.batches(
        contiguous_batches(samples, rank=world.rank, ranks=world.size, batch=batch)
    ):
        inputs = network_input(features, weights.dtype)
        loss = classification_loss(model(inputs), labels) * labels.numel()
        # Not backward: it would fire the hooks that start communication.
        gradients = torch.autograd.grad(loss, weights.parameters, materialize_grads=True)
        total[:2] += total.new_tensor([loss.item(), labels.numel()])
        torch._foreach_add_(views, [gradient.double() for gradient in gradients])
    model.train(was_training)
    host = total.cpu()
    world.comm.Allreduce(MPI.IN_PLACE, host.numpy(), MPI.SUM)
    loss_sum, predictions = host[:2].tolist()
    return loss_sum / predictions, host[2:] / predictions
