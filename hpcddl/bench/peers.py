"""torch's own implementations of what the strategies define (equal to 1e-12 in the tests)."""

import socket
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import (
    PostLocalSGDState,
    post_localSGD_hook,
)
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.hierarchical_model_averager import (
    HierarchicalModelAverager,
)
from torch.nn.parallel import DistributedDataParallel

from hpcddl.cluster.world import World

with warnings.catch_warnings():
    # torch 2.13 builds the rest of this package with its own deprecated functions.
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    from torch.distributed.optim import PostLocalSGDOptimizer

Optimizer = torch.optim.Optimizer
Peer = tuple[nn.Module, Optimizer]  # whose forward, backward and step() are one iteration


@contextmanager
def gloo(world: World) -> Iterator[None]:
    """Gives torch a process group of the world's ranks, which meet at rank 0's TCP store."""
    host = "localhost" if world.node.size == world.size else socket.gethostname()
    first = world.rank == 0
    store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False) if first else None
    host, port = world.comm.bcast((host, store.port if store else None))
    dist.init_process_group(
        "gloo",
        store=store or dist.TCPStore(host, port),
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=60),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
        world.comm.Barrier()  # rank 0's store outlives its users


def data_parallel(model: nn.Module, optimizer: Optimizer) -> Peer:
    """Makes SSGD: DistributedDataParallel averages the gradients in backward."""
    return DistributedDataParallel(model), optimizer


def periodic(model: nn.Module, optimizer: Optimizer, steps: int, after: int = 0) -> Peer:
    """Makes local SGD with H = `steps`, after `after` steps in which a hook averages gradients.

    The averager averages after its first step past `warmup_steps`, then every period: H - 1 steps
    of warm-up make that the local step number H.
    """
    if after:
        model = DistributedDataParallel(model)
        state = PostLocalSGDState(None, None, after, post_local_gradient_allreduce=False)
        model.register_comm_hook(state, post_localSGD_hook)
    averager = PeriodicModelAverager(steps, warmup_steps=after + steps - 1)
    return model, PostLocalSGDOptimizer(optimizer, averager)


def hierarchical(
    model: nn.Module, optimizer: Optimizer, steps: int, block_steps: int, block_size: int
) -> Peer:
    """Makes blocks of consecutive ranks average every H steps, all instead every H * H^b.

    The averager averages before it counts a step: told that one is done, it averages after each
    multiple of H.
    """
    periods = OrderedDict([(steps, block_size), (steps * block_steps, dist.get_world_size())])
    averager = HierarchicalModelAverager(periods)
    averager.step = 1
    return model, PostLocalSGDOptimizer(optimizer, averager)
