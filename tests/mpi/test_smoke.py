"""Packaged recipes on two learners, as `hpcddl train RECIPE --smoke` runs them.

Those with large networks are run by tests/test_smoke.py.
"""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpcddl.cli import main
from hpcddl.cluster.world import World
from hpcddl.commands import smoke
from hpcddl.data.known import contents
from hpcddl.run.checkpoint import newest
from hpcddl.run.config import Config, load_config
from hpcddl.run.fit import fit
from hpcddl.run.shorten import shorten
from hpcddl.run.stopping import Notice
from tests.recipe_sizes import small


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Of each training: the updates in the newest checkpoint before it, and whether it goes on."""
    found: list[tuple[int, bool]] = []

    def spy(config: Config, world: World, run: Path, *others: Any, **options: Any) -> None:
        before = newest(run) if run.exists() else None
        found.append((before.position.steps if before else 0, options.get("go_on", False)))
        fit(config, world, run, *others, **options)

    monkeypatch.setattr(smoke, "fit", spy)
    return found


def distinct_weights(config: Config) -> int:
    """How many of two learners' weights differ after a step that makes them agree."""
    mixing = config.strategy.name == "dpsgd" and config.strategy.options["super_learners"] == "none"
    return 2 if mixing else 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", small())
def test_a_recipe_takes_two_steps(name: str, world: World, rounds: list[tuple[int, bool]]) -> None:
    """It learns, evaluates, and goes on from the first step's checkpoint.

    The weights are bit for bit those of the run that was not stopped.
    """
    config = load_config(name)
    with smoke.temporary_folder(world) as folder:
        short = shorten(config, world, folder / "data", own_batch=False)
        of = contents(config.data.options["path"])
        result = smoke.rehearse(short, of, world, folder, time.time())
        assert rounds == [(0, False), (1, True)]
        fit(short, world, folder / "whole", Notice(), began=time.time())
        whole = world.comm.bcast(smoke.summary_of(folder / "whole") if world.rank == 0 else None)
    assert not folder.exists() or world.rank == 1
    assert len(result["losses"]) == 4  # two of training, two held-out
    assert None not in result["losses"]
    assert result["losses"] == whole["losses"]
    assert result["weights_sha256"] == whole["weights_sha256"]
    assert (result["updates"], result["epoch"]) == (2, config.start_epoch + 2)
    assert len(set(result["weights_sha256"])) == distinct_weights(config)


def test_the_command_says_what_it_did(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, of rank 0 alone; nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    words = ["train", "mini.local_sgd", "strategy.steps=8", "global_batch=12", "--smoke"]
    monkeypatch.setattr(sys, "argv", ["hpcddl", *words])
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == (world.rank == 0)
    if world.rank == 0:
        assert "smoke mini.local_sgd: passed: 2 steps of 12 samples on 2 learners" in out
        assert "(21x39, 300 classes); 180,844 weights, " in out
        assert out.endswith("strategy.steps=2 instead of 8\n")
    world.comm.Barrier()
    assert not list(tmp_path.iterdir())
