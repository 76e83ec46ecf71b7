"""The strategies against other libraries' implementations of the same definitions, in float64."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from hpcddl.bench import peers
from hpcddl.cluster.world import World
from hpcddl.training.accumulate import backward
from tests.mpi.dense import network, vector_of
from tests.mpi.test_strategies import OPTIMIZERS, all_weights, batch, build, rate

STEPS = 13  # three averages of all with H = 4, and then a local step


@pytest.fixture(scope="session")
def gloo(world: World) -> Iterator[None]:
    if not dist.is_gloo_available():
        pytest.skip("torch was built without gloo")
    with peers.gloo(world):
        yield


def ours(
    case: dict[str, Any], options: dict[str, Any], world: World, folder: Path, parts: int = 1
) -> np.ndarray:
    """The learners' weights (n, d) after a run of a strategy; an epoch is a step."""
    strategy = build(case, world, options, folder)
    for step in range(STEPS):
        _set_rate(strategy.optimizer, step)
        strategy.optimizer.zero_grad()
        strategy.epoch = float(step)
        strategy.before_forward()
        x, y = map(torch.from_numpy, batch(step, world.rank))
        backward(strategy.model, x, y, parts)
        strategy.update()
    return all_weights(strategy)


def theirs(
    model: nn.Module, optimizer: torch.optim.Optimizer, world: World, parts: int = 1
) -> np.ndarray:
    """The same in the loop that these libraries' documentation has."""
    for step in range(STEPS):
        _set_rate(optimizer, step)
        optimizer.zero_grad()
        x, y = map(torch.from_numpy, batch(step, world.rank))
        for some_x, some_y in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
            (cross_entropy(model(some_x), some_y) / parts).backward()
        optimizer.step()
    return np.array(world.comm.allgather(vector_of(model)))


def _set_rate(optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate(step)


Build = Callable[[nn.Module, torch.optim.Optimizer], peers.Peer]


@pytest.fixture(params=OPTIMIZERS)
def agrees(
    request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> Callable[[dict[str, Any], Build, int], None]:
    """Asserts that a strategy ends with the weights of a peer, on every learner."""
    options = OPTIMIZERS[request.param]

    def check(case: dict[str, Any], build_peer: Build, parts: int = 1) -> None:
        model = network()
        peer = build_peer(model, torch.optim.SGD(model.parameters(), lr=0.0, **options))
        expected = theirs(*peer, world, parts)
        found = ours(case, options, world, tmp_path, parts)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    return check


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("fusion_mib", [0, 64])
def test_ssgd_is_data_parallel(fusion_mib: int, agrees: Any, gloo: None) -> None:
    """torch's DistributedDataParallel."""
    agrees({"name": "ssgd", "fusion_mib": fusion_mib}, peers.data_parallel)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize(("steps", "after"), [(2, 0), (4, 0), (2, 3), (4, 4)])
def test_local_sgd_is_periodic_averaging(steps: int, after: int, agrees: Any, gloo: None) -> None:
    """torch's PostLocalSGDOptimizer, and its hook on gradients in post-local SGD's first phase."""
    agrees(
        {"name": "local_sgd", "steps": steps, "after": after},
        lambda model, optimizer: peers.periodic(model, optimizer, steps, after),
    )


@pytest.mark.ranks(3, 4)
@pytest.mark.parametrize(("steps", "block_steps"), [(1, 3), (2, 2)])
def test_hierarchical_is_hierarchical_averaging(
    steps: int, block_steps: int, agrees: Any, world: World, gloo: None
) -> None:
    """torch's HierarchicalModelAverager, in pairs where the ranks make some."""
    shape = {
        "steps": steps,
        "block_steps": block_steps,
        "block_size": 2 if world.size % 2 == 0 else world.size,
    }
    agrees(
        {"name": "local_sgd", **shape},
        lambda model, optimizer: peers.hierarchical(model, optimizer, **shape),
    )


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_is_horovod_s(parts: int, agrees: Any, world: World) -> None:
    """Horovod sums `backward_passes_per_step` gradients, here of loss / k.

    For PyTorch it has no average_aggregated_gradients: dividing is left to the caller.
    """
    hvd.init(comm=world.comm)

    def horovod(model: nn.Module, optimizer: torch.optim.Optimizer) -> peers.Peer:
        return model, hvd.DistributedOptimizer(
            optimizer, model.named_parameters(), backward_passes_per_step=parts
        )

    agrees({"name": "ssgd"}, horovod, parts)
