"""The loss over a whole data set, or some of it, and its derivatives, exact over all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.common.flat import FlatWeights
from hpcddl.communication.messages import add_up
from hpcddl.data import Dataset
from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import contiguous_batches, epoch_permutation
from hpcddl.models import hidden_state
from hpcddl.training.bad_data import check_samples
from hpcddl.training.evaluate import classification_loss
from hpcddl.training.hessian import Hessian


class OverallLoss:
    """L of one set of samples: its gradient and its curvature wherever the weights are.

    A whole text is read as streams, where each window continues from the state of the one before;
    if only some of its windows are drawn, each starts from zeros.
    """

    def __init__(self, dataset: Dataset, samples: int, seed: int, batch: int, world: World) -> None:
        """Takes the whole `dataset`, or `samples` of it that `seed` draws (0: all).

        Every rank takes its share, `batch` samples at a time.
        """
        self._loader = Prefetcher(dataset, world.device, depth=0)
        self._world, self._dataset = world, dataset
        place = {"rank": world.rank, "ranks": world.size, "batch": batch}
        self._streams = dataset.contiguous and not samples
        if not samples or samples >= len(dataset):
            self.samples = len(dataset)
            self._order = partial(dataset.in_order, **place)
        else:
            self.samples = samples
            chosen = np.sort(epoch_permutation(len(dataset), seed, 0)[:samples])
            self._order = partial(_some, chosen, **place)

    def gradient(self, network: nn.Module) -> tuple[float, Tensor]:
        """L in nats and g (d,), float64, beside the weights, in evaluation mode. Collective.

        All ranks hold the same weights w. Sums are in float64. Neither p.grad nor its hooks nor
        random numbers nor carried states are touched.

        Raises:
            AgreedError: L is not finite because of a sample whose features are not.
        """
        weights = FlatWeights(network)
        total = torch.zeros(weights.size + 2, dtype=torch.float64, device=weights.device)
        views = weights.views(total[2:])
        for features, labels in self._batches(network):
            inputs = network_input(features, weights.dtype)
            loss = classification_loss(network(inputs), labels) * labels.numel()
            # Not backward: it would fire the hooks that start communication.
            gradients = torch.autograd.grad(loss, weights.parameters, materialize_grads=True)
            total[:2] += total.new_tensor([loss.item(), labels.numel()])
            torch._foreach_add_(views, [gradient.double() for gradient in gradients])
        total = self._sum(total)
        loss_sum, predictions = total[:2].tolist()
        if not math.isfinite(loss_sum):
            check_samples(self._dataset, self._order(), self._world)
        return loss_sum / predictions, total[2:] / predictions

    def hessian_product(self, network: nn.Module, vector: Tensor) -> Tensor:
        """H v (d,), float64, of v (d,), as `gradient` takes L. Collective."""
        total = torch.zeros(len(vector) + 1, dtype=torch.float64, device=vector.device)
        for features, labels in self._batches(network):
            total[0] += labels.numel()
            total[1:] += Hessian(network, [(features, labels)], predictions=1)(vector)
        total = self._sum(total)
        return total[1:] / total[0]

    def _batches(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share; meanwhile `network` is in evaluation mode."""
        was_training = network.training
        network.eval()
        with hidden_state.aside(network, self._streams):
            yield from self._loader.batches(self._order())
        network.train(was_training)

    def _sum(self, vector: Tensor) -> Tensor:
        host = vector.cpu()
        add_up(self._world.comm, host.numpy())
        return host.to(vector.device)


def _some(chosen: NDArray, *, rank: int, ranks: int, batch: int) -> Iterator[NDArray]:
    for places in contiguous_batches(len(chosen), rank=rank, ranks=ranks, batch=batch):
        yield chosen[places]
