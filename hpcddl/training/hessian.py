"""The Hessian of the loss, used only through its products with vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hpcddl.common.flat import FlatWeights
from hpcddl.data.network_input import network_input
from hpcddl.training.evaluate import classification_loss

_GRAPH = 2  # times the bytes that the forward saves: 2.0 of ResNet-20, 1.7 of a bi-LSTM
Batch = tuple[Tensor, Tensor]
"""Features and labels, on the weights' device."""


class Hessian:
    """v -> H v: what `batches` add to the Hessian of the mean loss over `predictions` predictions.

    By double backward, H v = grad (g . v) (Pearlmutter 1994), at the present weights of `network`,
    in its present mode. The weights must stay as they are for as long as this is used.

    The autograd graph of g is kept for as many batches as `memory` bytes hold (an estimate). This
    saves each product the forward and the first backward, a third of its time or more. With a
    single batch it is always kept, which takes no more memory than a product takes anyway.
    """

    def __init__(
        self, network: nn.Module, batches: Sequence[Batch], predictions: int, memory: float = 0
    ) -> None:
        self.weights = FlatWeights(network)
        self._network = network
        self._batches = batches
        self._predictions = predictions
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
        with self._kernels():
            kept = 1 if len(batches) == 1 else self._fitting(memory)
            self._kept = [self._part(batch, graph=True) for batch in batches[:kept]]

    def __call__(self, vector: Tensor) -> Tensor:
        """H v (d,), summed in float64, of v (d,), which is rounded to the weights' type."""
        weights = self.weights
        total = weights.empty(torch.float64).zero_()
        views = weights.views(total)
        along = weights.views(vector.to(weights.device, weights.dtype))
        with self._kernels():
            for gradient, kept in self._gradients():
                # Where the loss is linear in a weight, its gradient depends on none.
                curved = [(g, v) for g, v in zip(gradient, along, strict=True) if g.requires_grad]
                if curved:
                    products = torch.autograd.grad(
                        [g for g, _ in curved],
                        weights.parameters,
                        [v for _, v in curved],
                        retain_graph=kept,
                        materialize_grads=True,
                    )
                    torch._foreach_add_(views, [product.double() for product in products])
        return total

    def gradient(self) -> Tensor:
        """g (d,), summed in float64: what `batches` add to the gradient of the same mean."""
        total = self.weights.empty(torch.float64).zero_()
        views = self.weights.views(total)
        with self._kernels():
            for batch in self._batches:
                parts = self._part(batch, graph=False)
                torch._foreach_add_(views, [part.double() for part in parts])
        return total

    def _gradients(self) -> Iterator[tuple[tuple[Tensor, ...], bool]]:
        """Each batch's, with its graph, and whether that stays."""
        yield from ((gradient, True) for gradient in self._kept)
        for batch in self._batches[len(self._kept) :]:
            yield self._part(batch, graph=True), False

    def _part(self, batch: Batch, graph: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            self._loss(batch), self.weights.parameters, create_graph=graph, materialize_grads=True
        )

    def _loss(self, batch: Batch) -> Tensor:
        features, labels = batch
        scores = self._network(network_input(features, self.weights.dtype))
        return classification_loss(scores, labels) * (labels.numel() / self._predictions)

    def _fitting(self, memory: float) -> int:
        """How many batches' graphs `memory` bytes hold, by what the first one's forward saves."""
        if not (memory and self._batches):
            return 0
        saved: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = self._loss(self._batches[0])
        del loss  # only now may addresses be used again
        own = {p.untyped_storage().data_ptr() for p in self.weights.parameters}
        forward = sum(size for address, size in saved.items() if address not in own)
        return int(min(len(self._batches), memory / (_GRAPH * max(forward, 1))))

    def _kernels(self) -> AbstractContextManager[None]:
        """cuDNN's recurrent layers have no second derivative, torch's own have one.

        TF32, torch's default in cuDNN's convolutions, would blur small eigenvalues.
        """
        kernels: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=not self._recurrent, allow_tf32=False
        )
        return kernels
