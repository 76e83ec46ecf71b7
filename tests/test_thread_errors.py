"""An error in a thread ends all ranks, also while the main thread waits inside a library."""

import pytest

from tests.conftest import run_python

IN_A_THREAD = """
import ctypes, threading
from hpcddl.cluster.world import World
world = World.create()
def fail():
    raise ValueError("too hot")
with world.failing_together():
    if world.rank == world.size - 1:
        threading.Thread(target=fail, name="heater").start()
    ctypes.CDLL(None).sleep(90)
"""

OWN_LOOP = """
import ctypes, threading
import hpcddl
world = hpcddl.init()
if world.rank == world.size - 1:
    threading.Thread(target=lambda: 1 / 0, name="heater").start()
ctypes.CDLL(None).sleep(90)
"""

HOROVOD = """
import resource
import torch
from torch import nn
from hpcddl.cluster.world import World
from hpcddl.communication.gradients import GradientMean
world = World.create()
with world.failing_together():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    mean = GradientMean(model, world, fusion_mib=1024)
    if world.rank == world.size - 1:
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), used + (200 << 20)))
    model(torch.ones(1, 3)).sum().backward()
    mean.finish()
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("script", [IN_A_THREAD, OWN_LOOP], ids=["world", "own loop"])
def test_an_exception_in_a_thread(script: str, ranks: int) -> None:
    done = run_python("-c", script, ranks=ranks, timeout=60)
    assert done.returncode == 1
    assert f"hpcddl: rank {ranks - 1} failed in thread heater\nTraceback" in done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_horovod_s_own_thread(ranks: int) -> None:
    """Here it has no memory for its buffer; its wait would never end."""
    done = run_python("-c", HOROVOD, ranks=ranks, timeout=60, cold=True)
    assert done.returncode == 1
    assert "Horovod's thread has ended by the error that it has printed above" in done.stderr


def test_the_buffer_is_bounded() -> None:
    words = "-m", "hpcddl.cli", "train", "mini.ssgd", "strategy={name: ssgd, fusion_mib: 1025}"
    done = run_python(*words)
    assert done.returncode == 2
    assert "strategy.fusion_mib" in done.stderr
    assert "1024" in done.stderr
