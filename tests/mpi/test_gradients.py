"""Gradients averaged under backward: the mean, on every rank, until told to stop."""

import time

import horovod.torch as hvd
import numpy as np
import pytest
import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.communication.gradients import GradientMean


class Branches(nn.Module):
    """Learner 0 uses one branch, the others the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 1).double(), nn.Linear(2, 1).double()

    def forward(self, x: torch.Tensor, branch: int) -> torch.Tensor:
        layer = self.second if branch else self.first
        out: torch.Tensor = layer(x).sum()
        return out


@pytest.mark.ranks(1, 2, 3, 4)
def test_a_parameter_unused_on_one_learner(world: World) -> None:
    """It counts as zero there, and nobody waits; after `stop` gradients are the learner's own."""
    model = Branches()
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    mean = GradientMean(model, world, fusion_mib=0)
    model(x, min(world.rank, 1)).backward()
    mean.finish()
    share = 1 / world.size
    np.testing.assert_allclose(model.first.weight.grad, share * x)
    np.testing.assert_allclose(model.second.weight.grad, (1 - share) * x, atol=1e-15)
    mean.stop()
    for parameter in model.parameters():
        parameter.grad = None
    (world.rank * model(x, 0)).backward()
    np.testing.assert_allclose(model.first.weight.grad, world.rank * x)


@pytest.mark.parametrize("polite", ["1", "0"])
def test_who_waits_does_not_wait_inside_horovod(
    polite: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Horovod is asked for the sum when it is there: where ranks share cores, and elsewhere."""
    monkeypatch.setenv("OMPI_MCA_mpi_yield_when_idle", polite)
    there = []
    real = hvd.synchronize

    def synchronize(handle: int) -> None:
        there.append(hvd.poll(handle))
        real(handle)

    monkeypatch.setattr(hvd, "synchronize", synchronize)
    layer = nn.Linear(2, 1)
    mean = GradientMean(layer, world, fusion_mib=0)
    if world.rank == 1:
        time.sleep(0.2)
    (world.rank * layer(torch.ones(1, 2))).backward()
    mean.finish()
    mean.stop()
    np.testing.assert_allclose(layer.weight.grad, np.full((1, 2), 0.5))
    assert len(there) == 2  # weight and bias
    assert all(there)
