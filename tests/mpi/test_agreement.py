"""What one learner knows, all find out at the same step."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from hpcddl.cluster.world import World
from hpcddl.run import agreement
from hpcddl.run.agreement import ROUND_SECONDS, Agreement, Found, agreeing, steps_of_a_round
from hpcddl.run.stopping import Stopped

Told = Callable[[int], bool]


def hear(
    world: World, stop: Told, due: Told, steps: int, seconds: float = 0.01
) -> list[tuple[int, Found]]:
    """At which of `steps` steps, of random lengths up to `seconds`, something was found, and what.

    `stop` and `due` are what this rank knows at each step.
    """
    jitter, heard = np.random.default_rng(world.rank), []
    with agreeing(world.comm) as every:
        for step in range(steps):
            time.sleep(seconds * jitter.random())
            found = every.step(stop(step), due(step))
            if found:
                heard.append((step, found))
    return heard


@pytest.mark.ranks(1, 2, 4)
def test_all_find_it_at_the_next_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of one step: what any rank says at step s all know at s + 1, and nothing else."""
    monkeypatch.setattr(agreement, "LONGEST", 1)
    last, middle = world.size - 1, world.size // 2

    def stop(step: int) -> bool:
        return (step, world.rank) in {(3, 0), (8, middle)}

    def due(step: int) -> bool:
        return (step, world.rank) == (7, last)

    assert hear(world, stop, due, 12) == [
        (step, Found(stop=step in (4, 9), due=step == 8)) for step in range(1, 12)
    ]


@pytest.mark.ranks(1, 2, 4)
def test_rounds_are_of_the_same_length_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the slowest learner's pace; what a learner is told in one round all know by the next."""
    monkeypatch.setattr(agreement, "ROUND_SECONDS", 0.02)
    heard = hear(world, lambda step: world.rank == 0 and step >= 20, lambda _: False, 60, 0.004)
    assert world.comm.allgather(heard) == [heard] * world.size
    ends = [step for step, _ in heard]
    assert ends[0] == 1  # the first round is of one step
    assert all(1 <= steps <= agreement.LONGEST for steps in np.diff(ends))
    first = next(step for step, found in heard if found.stop)
    begun = [step for step in ends if step >= 20]
    assert first == begun[1]


@pytest.mark.ranks(1, 2, 4)
def test_a_learner_may_be_a_round_ahead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the slowest, here the last rank, where a round ends, and nowhere before."""
    monkeypatch.setattr(agreement, "steps_of_a_round", lambda seconds: 5)
    with agreeing(world.comm) as every:
        assert every.step(False, False) is None
        assert every.step(False, False) is not None
        slowest = world.size - 1
        for rank in range(slowest) if world.rank == slowest else ():
            world.comm.recv(source=rank)
        found = [every.step(False, False) for _ in range(4)]
        if world.rank != slowest:
            world.comm.send(None, slowest)  # that it has got so far
        assert found == [None] * 4
        assert every.step(False, False) is not None


def leave(comm: agreement.MPI.Intracomm) -> None:
    with agreeing(comm) as every:
        every.step(True, True)
        raise Stopped


@pytest.mark.ranks(1, 2, 4)
def test_all_leave_together(world: World) -> None:
    """A round under way is ended when the learners stop; the next agreement starts afresh."""
    for _ in range(3):
        with pytest.raises(Stopped):
            leave(world.comm)
    every = Agreement(world.comm)
    every.step(False, False)
    assert every.step(False, False) == Found(stop=False, due=False)
    every.close()


@pytest.mark.parametrize(
    ("seconds", "steps"), [(0, 16), (0.001, 16), (0.1, 10), (0.4, 2), (1, 1), (30, 1)]
)
def test_steps_of_a_round(seconds: float, steps: int) -> None:
    """About a second's, at least one, at most sixteen."""
    assert ROUND_SECONDS == 1
    assert steps_of_a_round(seconds) == steps
