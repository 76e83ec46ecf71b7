"""A checkpoint of numbers that are not finite never replaces the last good one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hpcddl.run import checkpoint
from hpcddl.run.state import read_state
from hpcddl.strategies.ssgd import SSGD
from tests.conftest import Launch, run_python
from tests.synthetic import write_recipe, write_shards

# In step 15 of 30 the rate becomes infinite as float32: a finite loss, then weights that are not.
BLOWS_UP = "schedule={name: step, rate: 0.5, milestones: [1.5], factor: 1.0e+40}"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def newest(run: Path) -> str:
    found = checkpoint.newest(run)
    assert found is not None
    return found.folder.name


@pytest.mark.parametrize(
    ("words", "kept", "reason"),
    [
        (["checkpoint.every_steps=1"], "step-00000015", " of learner 0 is not finite"),
        ([], "epoch-0001", "training loss nan"),
        (["log_every=1000"], "epoch-0001", "training loss nan"),
    ],
)
def test_the_checkpoint_before_stays(
    words: list[str], kept: str, reason: str, shards: Path, tmp_path: Path, command: Launch
) -> None:
    """It is the run's last, is named, and is what `evaluate` and `--resume` take."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    done = command("train", recipe, BLOWS_UP, *words, "--out", run)
    assert done.returncode == 0, done.stderr
    assert newest(run) == kept
    result = summary(run)
    assert result["diverged"]
    assert reason in result["diverged_since"]["reason"]
    assert result["diverged_since"]["epoch"] == 2
    assert read_state(run).word == "diverged"
    (line,) = done.stderr.splitlines()
    assert line.startswith("hpcddl: warning: no checkpoint after it diverged (")
    assert line.endswith(f"the last good one is {run}/checkpoints/{kept}")
    done = command("evaluate", run, "--json")
    assert json.loads(done.stdout)["heldout_loss"] < 2.4
    again = command("train", recipe, BLOWS_UP, *words, "epochs=4", "--out", run, "--resume")
    assert "resumed after" in again.stdout
    assert newest(run) == kept


def test_without_a_good_one_evaluate_says_so(shards: Path, tmp_path: Path, command: Launch) -> None:
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    done = command("train", recipe, "schedule.rate=1e30", "--out", run)
    assert "there is no good one before" in done.stderr
    done = command("evaluate", run)
    assert done.returncode == 2
    assert done.stderr == f"hpcddl: error: run {run}: no checkpoint: it diverged before one\n"


def test_statistics_count_where_no_loss_shows_them(
    tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations with recomputed statistics do not show that a running one is infinite."""
    shards = tmp_path / "shards"
    done = command("prep", "digits", "--synthetic", 120, "--out", shards)
    assert done.returncode == 0, done.stderr
    more = (
        "model: {name: resnet20, mean: [128], std: [64]}\n"
        "batch_norm: {name: recomputed, batches: 2}\n"
    )
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    real = SSGD.update

    def update(strategy: SSGD) -> None:
        real(strategy)
        if strategy.step == 3:  # in the second epoch
            layers = (m for m in strategy.model.modules() if isinstance(m, nn.BatchNorm2d))
            next(layers).running_var[0] = math.inf

    monkeypatch.setattr(SSGD, "update", update)
    words = ("global_batch=60", "schedule.rate=0.01", "--out", run)
    assert command("train", recipe, *words).returncode == 0
    assert newest(run) == "epoch-0001"
    since = summary(run)["diverged_since"]
    assert since["epoch"] == 2
    assert since["reason"].endswith("running_var of learner 0 is not finite")


@pytest.mark.parametrize("strategy", ["ssgd", "{name: dpsgd, topology: ring, delayed: true}"])
def test_one_learner_s_momentum_stops_all(strategy: str, shards: Path, tmp_path: Path) -> None:
    """Rank 1 of three: no loss shows it yet, and nobody's checkpoint replaces the last good one."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, strategy), tmp_path / "run"
    code = (
        "import sys, mpi4py.MPI as m\n"
        "from hpcddl.optimizers.gradient_step import GradientStep\n"
        "real = GradientStep.take\n"
        "def take(self, weights, step):\n"
        "    real(self, weights, step)\n"
        "    if step == 12 and m.COMM_WORLD.rank == 1:\n"
        "        state = self.optimizer.state[weights.parameters[-1]]\n"
        "        state['momentum_buffer'][0] = float('inf')\n"
        "GradientStep.take = take\n"
        "from hpcddl.cli import main\n"
        "sys.exit(main())\n"
    )
    words = ("train", recipe, "checkpoint.every_steps=1", "--out", run)
    done = run_python("-c", code, *words, ranks=3)
    assert done.returncode == 0, done.stderr
    assert newest(run) == "step-00000012"
    assert "momentum_buffer of learner 1 is not finite" in summary(run)["diverged_since"]["reason"]
    assert done.stderr.count("the last good one is") == 1
