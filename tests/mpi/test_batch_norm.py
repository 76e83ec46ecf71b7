"""Batch-norm statistics that the learners recompute together, in float64."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.training.batch_norm import recomputed
from tests.mpi.dense import samples


def network(rank: int) -> nn.Sequential:
    """Another one on each learner."""
    torch.manual_seed(rank)
    layers = nn.BatchNorm1d(5), nn.Linear(5, 4), nn.Tanh(), nn.BatchNorm1d(4)
    model = nn.Sequential(*layers).double()
    model(torch.from_numpy(samples(8, seed=rank)[0]))
    return model


def batch(rank: int, number: int) -> Tensor:
    return torch.from_numpy(samples(6, seed=100 * rank + number)[0])


def own_batches(rank: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in range(9):
        yield batch(rank, number), torch.zeros(6)


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_are_those_of_all_batches_at_the_consensus(count: int, world: World) -> None:
    """update_bn at w_a over the batches of all learners, and by hand for the first layer.

    Also with fewer batches than learners, and with more on some than on others.
    """
    model = network(world.rank)
    choice = From(STRATEGIES).choose({"name": "dpsgd", "topology": {"name": "ring"}})
    strategy = choice.build(STRATEGIES, model, GradientStep(sgd(model)), world, 0)
    taken = [batch(number % world.size, number // world.size) for number in range(count)]
    before = [b.clone() for b in model.buffers()]
    with strategy.consensus():
        reference = copy.deepcopy(model)
        update_bn(taken, reference)
        averaged = [b.clone() for b in model.buffers()]
        with recomputed(model, "x", 9, batches=count).inside(model, own_batches(world.rank), world):
            for layer in (0, 3):
                for name in ("running_mean", "running_var"):
                    found, expected = (getattr(m[layer], name) for m in (model, reference))
                    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)
            inputs = np.array([b.numpy() for b in taken])
            np.testing.assert_allclose(model[0].running_mean, inputs.mean((0, 1)), rtol=1e-12)
            np.testing.assert_allclose(
                model[0].running_var, inputs.var(1, ddof=1).mean(0), rtol=1e-12
            )
            bits = [b.numpy().tobytes() for b in model.buffers() if b.is_floating_point()]
            assert world.comm.allgather(bits) == [bits] * world.size
        assert all(map(torch.equal, model.buffers(), averaged))
    assert all(map(torch.equal, model.buffers(), before))
