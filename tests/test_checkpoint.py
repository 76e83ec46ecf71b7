"""Checkpoints are whole or absent, checked when read, and pruned as asked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.run import checkpoint
from hpcddl.run.checkpoint import at_epoch, newest
from hpcddl.run.config import Checkpointing
from hpcddl.run.learner import parse_reference
from hpcddl.training.position import Position


@pytest.fixture(scope="module")
def world() -> World:
    return World.create()


def save(run: Path, world: World, position: Position, value: float = 1.0, **options: Any) -> None:
    state = {"strategy": {"model": {"w": torch.full((3,), value), "n": torch.tensor(7)}}}
    keep = {"keep_last": 2, "keep_epochs": (), **options}
    checkpoint.save(run, world, position, state, {"file_bytes": 0}, **keep)


def kept(run: Path) -> list[str]:
    return sorted(f.name for f in (run / "checkpoints").iterdir())


def test_round_trip(world: World, tmp_path: Path) -> None:
    save(tmp_path, world, Position(3, 0, 30), 2.5)
    found = newest(tmp_path)
    assert found is not None
    assert found.position == Position(3, 0, 30)
    assert found.learners == 1
    assert torch.equal(found.learner(0)["strategy"]["model"]["w"], torch.full((3,), 2.5))


def test_the_newest_is_the_furthest_on(world: World, tmp_path: Path) -> None:
    """A step checkpoint within epoch 3 is further on than the end of epoch 2 (position 2, 0)."""
    assert newest(tmp_path) is None
    save(tmp_path, world, Position(2, 0, 20))
    save(tmp_path, world, Position(2, 5, 25))
    found = newest(tmp_path)
    assert found is not None
    assert found.position.steps == 25


def test_keeps_the_last_and_the_chosen(world: World, tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save(tmp_path, world, Position(epoch, 0, 10 * epoch), keep_epochs=(2,))
    assert kept(tmp_path) == ["epoch-0002", "epoch-0004", "epoch-0005"]


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damage_is_named(damage: str, world: World, tmp_path: Path) -> None:
    """torch.load would take a file with one flipped byte without a word."""
    save(tmp_path, world, Position(1, 0, 10))
    path = tmp_path / "checkpoints" / "epoch-0001" / "learner-00000.pt"
    whole = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes(whole[:-1] if damage == "cut" else flipped)
    with pytest.raises(UserError, match=r"learner-00000\.pt: (altered|missing)"):
        at_epoch(tmp_path, 1).learner(0)


def test_a_garbled_manifest_is_named(world: World, tmp_path: Path) -> None:
    save(tmp_path, world, Position(1, 0, 10))
    manifest = tmp_path / "checkpoints" / "epoch-0001" / "manifest.json"
    for text in ("{", "[]", '{"version": 2}', '{"version": 1}'):
        manifest.write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json: (version|not a)"):
            newest(tmp_path)


def test_a_damaged_older_one_fails_no_newer_one(world: World, tmp_path: Path) -> None:
    save(tmp_path, world, Position(1, 0, 10))
    (tmp_path / "checkpoints" / "epoch-0001" / "manifest.json").write_text("{")
    for epoch in (2, 3, 4):
        save(tmp_path, world, Position(epoch, 0, 10 * epoch))
    assert kept(tmp_path) == ["epoch-0001", "epoch-0003", "epoch-0004"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_consensus_is_the_mean_of_the_learners(dtype: torch.dtype, tmp_path: Path) -> None:
    """Summed in float64 wherever a tensor lies; all else is learner 0's, and no message is kept."""
    files = {}
    for rank, value in enumerate((1e8, 1.0, -1e8)):
        tied = torch.tensor([value, 3.0 * rank], dtype=dtype)
        model = {"in": tied, "out": tied, "n": torch.tensor(rank)}
        optimizer = {"state": {0: {"momentum_buffer": -tied}}, "groups": [{"lr": 0.1 + rank}]}
        pending = {"received": [tied] * rank}
        strategy = {"model": model, "optimizer": optimizer, "step": 5, "pending": pending}
        path = tmp_path / f"learner-{rank:05d}.pt"
        torch.save({"strategy": strategy}, path)
        files[path.name] = checkpoint.sha256(path)
    found = checkpoint.Checkpoint(tmp_path, 3, Position(), {}, files)
    mean = checkpoint.consensus_state(found)
    expected = torch.tensor([1 / 3, 3.0], dtype=dtype)  # summed in float32 it would begin with 0
    assert torch.equal(mean["model"]["in"], expected)
    assert torch.equal(mean["model"]["out"], expected)
    assert torch.equal(mean["optimizer"]["state"][0]["momentum_buffer"], -expected)
    assert (mean["model"]["n"], mean["optimizer"]["groups"]) == (0, [{"lr": 0.1}])
    assert (mean["step"], mean["pending"]) == (5, None)


def test_a_missing_epoch_lists_those_there_are(world: World, tmp_path: Path) -> None:
    save(tmp_path, world, Position(4, 0, 40))
    with pytest.raises(UserError, match="no checkpoint of epoch 3; kept: 4"):
        at_epoch(tmp_path, 3)


@pytest.mark.parametrize(
    ("position", "due"),
    [
        (Position(2, 0, 20), True),  # every 2 epochs
        (Position(3, 0, 30), True),  # kept by name
        (Position(5, 0, 50), False),
        (Position(7, 0, 70), True),  # the last
        (Position(4, 8, 48), True),  # every 8 steps
        (Position(4, 9, 49), False),
        (Position(4, 16, 56), False),  # the epoch's last: its evaluation comes first
    ],
)
def test_when_a_checkpoint_is_due(position: Position, due: bool) -> None:
    options = Checkpointing(every_epochs=2, every_steps=8, keep_epochs=(3,))
    assert checkpoint.is_due(position, options, epochs=7, steps_per_epoch=16) is due


def test_references() -> None:
    assert parse_reference("runs/a@b@16") == (Path("runs/a@b"), 16)
    for text in ("runs/a", "@3", "runs/a@", "runs/a@x"):
        with pytest.raises(UserError, match="RUN@EPOCH"):
            parse_reference(text)
