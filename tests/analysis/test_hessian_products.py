"""Products with the Hessian against differences of gradients, which know no second backward."""

from math import inf

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hpcddl.common.flat import FlatWeights
from hpcddl.models import MODELS
from hpcddl.training.hessian import Batch, Hessian

NETWORKS = {
    "bilstm": ((6, 5), {"layers": 2, "cells": 8, "bottleneck": 4}),
    "resnet20": ((3, 8, 8), {}),
}


def case(name: str) -> tuple[nn.Module, list[Batch]]:
    torch.manual_seed(2)
    shape, options = NETWORKS[name]
    network = MODELS[name](shape, 7, **options).eval()
    features = torch.randn(4, *shape)
    with torch.no_grad():
        labels = torch.randint(7, network(features).shape[:-1])
    return network, [(features, labels)]


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_kernels_are_differentiated_twice(name: str) -> None:
    """oneDNN has its own LSTM for float32, and none for float64: both have the same Hessian."""
    network, batches = case(name)
    predictions = batches[0][1].numel()
    vector = torch.randn(FlatWeights(network).size, dtype=torch.float64)
    single = Hessian(network, batches, predictions)(vector)
    double = Hessian(network.double(), batches, predictions)(vector)
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=1e-3, atol=2e-4 * float(double.abs().max()))


def test_is_the_slope_of_the_gradient() -> None:
    """H v = [g(w + e v) - g(w - e v)] / 2e + O(e^2)."""
    network, batches = case("bilstm")
    weights = FlatWeights(network.double())
    centre, predictions = weights.read(weights.empty()), batches[0][1].numel()
    vector = torch.randn(weights.size, dtype=torch.float64)
    product = Hessian(network, batches, predictions)(vector)

    def gradient(at: float) -> torch.Tensor:
        weights.write(centre + at * vector)
        return Hessian(network, batches, predictions).gradient()

    step = 1e-5
    slope = (gradient(step) - gradient(-step)) / (2 * step)
    torch.testing.assert_close(product, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_graphs_change_no_bit(name: str) -> None:
    """All of them, some or none, as the memory says; and again from graphs that were used."""
    network, [(features, labels)] = case(name)
    batches = list(zip(features.split(1), labels.split(1), strict=True))
    predictions = labels.numel()
    vector = torch.randn(FlatWeights(network).size, dtype=torch.float64)
    anew = Hessian(network, batches, predictions)
    one = graph_bytes(network, batches[0], predictions)
    for memory in (2.5 * one, inf):
        kept = Hessian(network, batches, predictions, memory)
        for _ in range(2):
            assert torch.equal(kept(vector), anew(vector))


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_graphs_are_kept_as_the_memory_holds(name: str) -> None:
    """Counted by forwards: a product makes one for each batch whose graph is not kept."""
    network, [(features, labels)] = case(name)
    batches = list(zip(features.split(1), labels.split(1), strict=True))
    one = graph_bytes(network, batches[0], labels.numel())
    forwards = 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    network.register_forward_pre_hook(count)
    for memory, anew in [(0, 4), (0.9 * one, 4), (2.5 * one, 2), (4 * one, 0), (inf, 0)]:
        hessian = Hessian(network, batches, labels.numel(), memory)
        forwards = 0
        hessian(torch.ones(hessian.weights.size))
        assert forwards == anew, memory


def graph_bytes(network: nn.Module, batch: Batch, predictions: int) -> int:
    """Twice what autograd saves of a forward, the weights aside."""
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    features, labels = batch
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = network(features)
        loss = cross_entropy(scores.flatten(0, -2), labels.flatten()) * (
            labels.numel() / predictions
        )
    loss.backward()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return 2 * sum(size for address, size in saved.items() if address not in weights)
