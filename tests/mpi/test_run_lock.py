"""A run directory's lock and checkpoints, as several nodes see them."""

import shutil
from pathlib import Path

import pytest
import torch

from hpcddl.cluster.world import AgreedError, World
from hpcddl.run import checkpoint
from hpcddl.run.intact import newest_intact, tidy
from hpcddl.run.run_lock import RunLock, reaches_all_nodes
from hpcddl.training.position import Position


@pytest.fixture
def nodes(world: World) -> World:
    """The same learners, each on a node of its own."""
    return World.create(node_size=1)


@pytest.mark.ranks(1, 3)
def test_a_lock_reaches_other_nodes(nodes: World, tmp_path: Path) -> None:
    """While rank 0 holds it no other rank could have it; once it is let go of each could."""
    lock = RunLock(tmp_path)
    nodes.on_rank_zero(lock.take)
    assert reaches_all_nodes(lock.path, nodes)
    lock.close()
    nodes.comm.Barrier()
    assert reaches_all_nodes(lock.path, nodes) == (nodes.size == 1)


def test_a_folder_of_one_node_is_refused(nodes: World, tmp_path: Path) -> None:
    with pytest.raises(AgreedError, match=r"not seen from .*; must be a folder that all nodes"):
        reaches_all_nodes(tmp_path / str(nodes.rank) / ".lock", nodes)


def save(world: World, run: Path, epoch: int) -> None:
    state = {"strategy": {"w": torch.full((3,), float(epoch))}}
    position = Position(epoch, 0, 10 * epoch, world.size)
    checkpoint.save(run, world, position, state, {}, keep_last=9, keep_epochs=())


@pytest.mark.ranks(1, 3)
def test_damage_to_any_learner_is_found_by_all(world: World, tmp_path: Path) -> None:
    """Of the newest checkpoint one learner's file, whichever rank's: all take the one before."""
    for epoch in (1, 2):
        save(world, tmp_path, epoch)
    newest = tmp_path / "checkpoints" / "epoch-0002"
    for learner in range(world.size):
        victim = newest / f"learner-{learner:05d}.pt"
        world.comm.Barrier()
        if world.rank == 0:
            shutil.copy(victim, tmp_path / "kept")
            victim.write_bytes(victim.read_bytes()[:-1])
        world.comm.Barrier()
        search = newest_intact(tmp_path, world)
        assert search.found is not None
        assert search.found.position.epoch == 1
        assert list(search.faults) == [newest]
        assert search.faults[newest].startswith(f"{victim}: altered")
        world.comm.Barrier()
        if world.rank == 0:
            shutil.move(tmp_path / "kept", victim)
    world.comm.Barrier()
    search = newest_intact(tmp_path, world)
    assert search.found is not None
    assert (search.found.position.epoch, search.faults) == (2, {})


def test_what_is_set_aside_is_no_checkpoint(world: World, tmp_path: Path) -> None:
    """Damaged ones keep their content under another name; what was half written is dropped."""
    for epoch in (1, 2):
        save(world, tmp_path, epoch)
    folder = tmp_path / "checkpoints"

    def damage_and_tidy() -> None:
        (folder / ".epoch-0003.partial").mkdir()
        for _ in range(2):  # also where one was set aside before
            tidy(tmp_path, [folder / "epoch-0002"])
            shutil.copytree(folder / "epoch-0002.damaged", folder / "epoch-0002")
        tidy(tmp_path, [folder / "epoch-0002"])

    world.on_rank_zero(damage_and_tidy)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0001", "epoch-0002.damaged"]
    assert [path.name for path in checkpoint.folders(tmp_path)] == ["epoch-0001"]
