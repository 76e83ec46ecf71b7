"""The Hessian of the loss, known by its products with vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from hpcddl.data.network_input import network_input
from hpcddl.evaluate import classification_loss
from hpcddl.flat import FlatWeights

Batch = tuple[Tensor, Tensor]
"""Features and labels, on the weights' device."""


class Hessian:
    """v -> H v: what `batches` add to the Hessian of the mean loss over `predictions` predictions.

    By double backward, H v = grad (g . v) (Pearlmutter 1994), at the present weights of `network`,
    in its present mode. The weights must stay as they are for as long as this is used.

    Of a single batch the graph of g is kept. That takes no more memory than a product does anyway,
    and saves each product the forward and the first backward.
    """

    def __init__(self, network: nn.Module, batches: Sequence[Batch], predictions: int) -> None:
        self.weights = FlatWeights(network)
        self._network = network
        self._batches = batches
        self._predictions = predictions
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
        self._kept: tuple[Tensor, ...] | None = None
        if len(batches) == 1:
            with self._kernels():
                self._kept = self._part(batches[0], graph=True)

    def __call__(self, vector: Tensor) -> Tensor:
        """H v (d,), summed in float64, of v (d,), which is rounded to the weights' type."""
        weights = self.weights
        total = weights.empty(torch.float64).zero_()
        views = weights.views(total)
        along = weights.views(vector.to(weights.device, weights.dtype))
        with self._kernels():
            for gradient in self._gradients():
                # Where the loss is linear in a weight, its gradient depends on none.
                curved = [(g, v) for g, v in zip(gradient, along, strict=True) if g.requires_grad]
                if curved:
                    products = torch.autograd.grad(
                        [g for g, _ in curved],
                        weights.parameters,
                        [v for _, v in curved],
                        retain_graph=self._kept is not None,
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

    def _gradients(self) -> Iterator[tuple[Tensor, ...]]:
        if self._kept is not None:
            yield self._kept
            return
        for batch in self._batches:
            yield self._part(batch, graph=True)

    def _part(self, batch: Batch, graph: bool) -> tuple[Tensor, ...]:
        features, labels = batch
        scores = self._network(network_input(features, self.weights.dtype))
        loss = classification_loss(scores, labels) * (labels.numel() / self._predictions)
        return torch.autograd.grad(
            loss, self.weights.parameters, create_graph=graph, materialize_grads=True
        )

    def _kernels(self) -> AbstractContextManager[None]:
        """cuDNN's recurrent layers have no second derivative, torch's own have one.

        TF32, torch's default in cuDNN's convolutions, would blur small eigenvalues.
        """
        kernels: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=not self._recurrent, allow_tf32=False
        )
        return kernels
