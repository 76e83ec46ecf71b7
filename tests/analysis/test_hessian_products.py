"""Products with the Hessian against differences of gradients, which know no second backward."""

import pytest
import torch
from torch import nn

from hpcddl.analysis.hessian import Batch, Hessian
from hpcddl.flat import FlatWeights
from hpcddl.models import MODELS

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
