"""Emulated links in virtual time: what each strategy's step takes, to the microsecond.

Every learner has a clock of its own that only computing and sleeping move, so nothing here depends
on the machine's speed.
"""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from hpcddl.cluster import emulate
from hpcddl.cluster.emulate import Emulation
from hpcddl.cluster.links import EmulatedLinks, Link, Links, links_of, put_links, split
from hpcddl.cluster.world import World
from hpcddl.common.options import From
from hpcddl.communication.groups import block_of, counterparts
from hpcddl.optimizers import sgd
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy
from tests.mpi.dense import network
from tests.mpi.test_strategies import SEED, all_weights, batch

COMPUTE = 1.0  # seconds of forward and backward
STEPS = 12


class Clock:
    """Virtual seconds of one learner."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def emulated(
    world: World,
    between: Link,
    within: Link | None = None,
    node_size: int = 1,
    round_delay: float = 0.0,
    slowness: float = 1.0,
) -> tuple[World, Clock]:
    clock = Clock()
    nodes = [rank // node_size for rank in range(world.size)]
    comm = world.comm.Dup()
    links = within or between, between
    put_links(
        comm,
        EmulatedLinks(comm, nodes, *links, round_delay, slowness, clock=clock, sleep=clock.sleep),
    )
    return World(comm, split(comm, nodes[comm.rank]), world.device), clock


def train(case: dict[str, Any], world: World, clock: Clock, steps: int = STEPS) -> Strategy:
    """Steps of the small network; computing takes COMPUTE seconds, all else only what it waits."""
    model = network()
    choice = From(STRATEGIES).choose(case)
    strategy: Strategy = choice.build(STRATEGIES, model, GradientStep(sgd(model)), world, SEED)
    for step in range(steps):
        for group in strategy.optimizer.param_groups:
            group["lr"] = 0.1
        strategy.optimizer.zero_grad()
        strategy.before_forward()
        x, y = map(torch.from_numpy, batch(step, world.rank))
        with links_of(world.comm).computing():
            clock.sleep(COMPUTE)
            cross_entropy(model(x), y).backward()
        strategy.update()
    return strategy


def seconds(case: dict[str, Any], world: World, link: Link, **options: Any) -> float:
    """Per step, of the slowest learner."""
    slow, clock = emulated(world, link, **options)
    began = clock()
    strategy = train(case, slow, clock)
    taken = clock() - began
    del strategy  # waits for what is still under way
    return max(world.comm.allgather(taken)) / STEPS


def message_bytes(world: World) -> int:
    return 8 * sum(p.numel() for p in network().parameters())


@pytest.mark.ranks(1, 2, 3)
def test_duplicates_have_the_links(world: World) -> None:
    """Also a duplicate's duplicate, and when the first is gone; one made before has them not."""
    comm = world.comm.Dup()
    before = comm.Dup()
    links = Links()
    put_links(comm, links)
    second = comm.Dup()
    third = second.Dup()
    assert links_of(comm) is links_of(second) is links_of(third) is links
    assert links_of(before) is links_of(world.comm) is not links
    comm.Free()
    second.Free()
    assert links_of(third) is links
    third.Free()
    before.Free()


@pytest.mark.ranks(1, 2, 3, 4)
def test_parts_have_the_links(world: World) -> None:
    """Those of a split, of a recipe's blocks and of the learners at one place in each."""
    slow, _ = emulated(world, Link())
    links = links_of(slow.comm)
    block = block_of(slow, 1)
    for part in (slow.node, split(slow.comm, 0, -slow.rank), block, counterparts(slow, block)):
        assert links_of(part) is links
        assert links_of(part.Dup()) is links
    for part in (world.node, split(world.comm, 0), block_of(world, 1), block_of(world, None)):
        assert type(links_of(part)) is Links


@pytest.mark.ranks(1, 2, 3)
@pytest.mark.parametrize("node_size", [None, 1, 2])
def test_other_worlds_keep_their_links(node_size: int | None, world: World) -> None:
    """Emulation stays in the world that was made for it: not in the one given, nor in a new one."""
    slow = emulate.emulated(world, Emulation(node_size=node_size, slow={0: 2.0}))
    assert isinstance(links_of(slow.comm), EmulatedLinks)
    assert links_of(slow.node) is links_of(slow.comm)
    size = node_size or world.size
    assert slow.node.size == min(size, world.size - world.rank // size * size)
    for other in (world, World.create(), World.create(node_size=1)):
        assert type(links_of(other.comm)) is type(links_of(other.node)) is Links


@pytest.mark.ranks(2, 3)
def test_a_part_s_ranks_are_those_of_the_whole(world: World) -> None:
    """In a part of another order each learner is on the node that it is on in the whole."""
    slow, clock = emulated(world, Link(1.0), within=Link(0.0), node_size=2)
    turned = split(slow.comm, 0, -slow.rank)
    began, other = clock(), (turned.rank + 1) % turned.size
    links_of(turned).exchange(turned, 0, [other], [(turned.rank - 1) % turned.size])()
    sender = (slow.rank + 1) % slow.size  # the order is turned round
    assert clock() - began == (0.0 if sender // 2 == slow.rank // 2 else 1.0)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("name", ["ssgd", "local_sgd", "dpsgd"])
def test_the_consensus_takes_no_emulated_time(name: str, world: World) -> None:
    """It is for an evaluation, which is no part of training."""
    case = {"name": name, **({"steps": 2} if name == "local_sgd" else {})}
    slow, clock = emulated(world, Link(0.1, 1000.0), round_delay=1.0)
    strategy = train(case, slow, clock, steps=1)
    began = clock()
    with strategy.consensus():
        assert clock() == began


PAIRS = {"name": "dpsgd", "topology": {"name": "one_peer_exponential"}}
DELAYED = {**PAIRS, "delayed": True}


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("share", [0.5, 0.999, 1.5])
def test_dpsgd_hides_what_fits_under_forward_and_backward(share: float, world: World) -> None:
    """A step takes the longer of computing and one exchange."""
    link = Link(bytes_per_second=message_bytes(world) / (share * COMPUTE))
    expected = max(COMPUTE, share) if world.size > 1 else COMPUTE
    assert seconds(PAIRS, world, link) == pytest.approx(expected)


@pytest.mark.ranks(1, 2, 3, 4)
def test_a_delayed_exchange_hides_a_whole_step_more(world: World) -> None:
    """Latency below two steps is hidden, the one beyond them shows; bandwidth stays a limit."""
    assert seconds(DELAYED, world, Link(latency_seconds=1.9 * COMPUTE)) == pytest.approx(COMPUTE)
    if world.size > 1:
        slow = seconds(PAIRS, world, Link(latency_seconds=1.9 * COMPUTE))
        assert slow == pytest.approx(1.9 * COMPUTE)
        narrow = Link(bytes_per_second=message_bytes(world) / 1.5)
        # Every exchange but the last, which no step waits for.
        assert seconds(DELAYED, world, narrow) == pytest.approx(1.5 * (STEPS - 1) / STEPS)


@pytest.mark.ranks(1, 2, 3, 4)
def test_ssgd_shows_what_backward_does_not_hide(world: World) -> None:
    """All gradients are ready at the end of computing here: an allreduce per tensor follows."""
    latency = 0.01
    rounds = 2 * (world.size - 1).bit_length()
    expected = COMPUTE + 4 * rounds * latency if world.size > 1 else COMPUTE
    assert seconds({"name": "ssgd"}, world, Link(latency)) == pytest.approx(expected)
    fused = seconds({"name": "ssgd", "fusion_mib": 1}, world, Link(latency))
    # The first tensor leaves alone, as the others are not ready; here they are, but for nothing.
    assert COMPUTE + rounds * latency <= fused + 1e-9 <= expected + 1e-9


@pytest.mark.ranks(1, 2, 3, 4)
@pytest.mark.parametrize("steps", [1, 4])
def test_local_sgd_pays_for_an_average_every_h_steps(steps: int, world: World) -> None:
    link = Link(latency_seconds=0.1)
    rounds = 2 * (world.size - 1).bit_length() * 0.1
    expected = COMPUTE + rounds / steps if world.size > 1 else COMPUTE
    assert seconds({"name": "local_sgd", "steps": steps}, world, link) == pytest.approx(expected)


@pytest.mark.ranks(4)
def test_blocks_ride_out_a_delay_of_fifty_seconds(world: World) -> None:
    """Paper B fig. 19(c): only the average over all waits; those inside nodes go on."""
    case = {"name": "local_sgd", "steps": 1, "block_steps": 12, "block_size": 2}
    options = {"within": Link(0.001), "node_size": 2, "round_delay": 50.0}
    blocks = seconds(case, world, Link(0.1), **options)
    # 11 averages of pairs (2 latencies), one of four (4 latencies and the delay).
    assert blocks == pytest.approx(COMPUTE + (11 * 0.002 + 0.4 + 50) / 12)
    assert seconds({"name": "local_sgd", "steps": 1}, world, Link(0.1), **options) == pytest.approx(
        COMPUTE + 50.4
    )


@pytest.mark.ranks(2, 3)
def test_a_slow_learner_holds_up_those_who_wait_for_it(world: World) -> None:
    """Twice as slow: a synchronous step waits at every step, and its gradients are late too."""
    slowness = 2.0 if world.rank == 0 else 1.0
    slow, clock = emulated(world, Link(), slowness=slowness)
    began = clock()
    train({"name": "ssgd"}, slow, clock)
    # The first step's time is not known before it has been taken once.
    assert clock() - began == pytest.approx(COMPUTE + 2 * COMPUTE * (STEPS - 1))


@pytest.mark.ranks(4)
def test_super_learners_exchange_between_nodes_only(world: World) -> None:
    """Each learner of a node sends its share, 19 or 20 of the 39 weights, between the nodes."""
    narrow = Link(bytes_per_second=message_bytes(world) / (3 * COMPUTE))
    options = {"within": Link(), "node_size": 2}
    shared = seconds({**PAIRS, "super_learners": "node"}, world, narrow, **options)
    assert shared == pytest.approx(20 / 39 * 3 * COMPUTE)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("name", ["ssgd", "local_sgd", "dpsgd"])
def test_emulation_changes_no_weight(name: str, world: World) -> None:
    """Bit for bit the run over the real links."""
    case = {"name": name, **({"steps": 2} if name == "local_sgd" else {})}
    slow, clock = emulated(world, Link(0.1, 1000.0), round_delay=1.0)
    one = all_weights(train(case, slow, clock))
    real = World(world.comm, world.node, world.device)
    two = all_weights(train(case, real, Clock()))
    assert (one == two).all()
