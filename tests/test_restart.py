"""Going on after a stop: on other numbers of ranks, from the middle of an epoch, after the end."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hpcddl.run import checkpoint
from hpcddl.strategies import STRATEGIES
from tests.conftest import Launch, run_python
from tests.synthetic import write_recipe, write_shards
from tests.test_train import lines, refused, summary

TIMES = ("seconds", "wall_seconds", "command")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards")


def killed_after(run: Path, updates: int) -> None:
    """Leaves `run` as a kill after the checkpoint of `updates` updates would have."""
    (run / "summary.json").unlink()
    for folder in (run / "checkpoints").iterdir():
        if checkpoint.read(folder).position.steps > updates:
            shutil.rmtree(folder)


def weights_after(run: Path, epochs: int) -> dict[str, torch.Tensor]:
    return checkpoint.at_epoch(run, epochs).learner(0)["strategy"]["model"]


# Many runs in one launch; beside each, what its learners hold right after a restart.
EVERY = """
import sys, torch
from pathlib import Path
from hpcddl.run import resume
from hpcddl.cli import main
def restore(strategy, *rest):
    real(strategy, *rest)
    path = recipe.with_suffix(f".{strategy.world.size}.{strategy.world.rank}")
    torch.save({"strategy": strategy.state_dict(), "seed": torch.initial_seed()}, path)
real, resume.restore = resume.restore, restore
for recipe in sorted(Path(sys.argv[1]).glob("*.yaml")):
    words = [str(recipe), *sys.argv[2:], "--resume", "--out", str(recipe.with_suffix(""))]
    if main(["train", *words]):
        sys.exit(f"{recipe} failed")
"""


def train_all(folder: Path, *words: object, ranks: int) -> None:
    """Trains, or goes on with, every recipe NAME.yaml of `folder` in `folder`/NAME."""
    done = run_python("-c", EVERY, folder, *words, ranks=ranks)
    assert done.returncode == 0, done.stderr


# Of 5 updates an epoch: the order; after which the learners change; epochs that stay the same.
ORDERS = {
    "exact": ("{shuffle: exact}", (2, 8), 2),
    # Here the order depends on the learners: it stays that of 2 until the epoch's end.
    "blocks": ("{shuffle: blocks, block: 8, buffer: 24}", (2, 4), 1),
    "kept": ("{reshuffle: never}", (2, 4), 1),
}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of SSGD on 2 learners, and beside them their copies that went on with 4 and then 1."""
    whole = tmp_path_factory.mktemp("whole")
    shards = write_shards(tmp_path_factory.mktemp("data") / "shards", train=120)
    more = "epochs: 2\ndtype: float64\nlog_every: 1\ncheckpoint: {every_steps: 2, keep_last: 99}"
    for name, (options, _, _) in ORDERS.items():
        data = yaml.safe_load(options) | {"name": "shards", "path": str(shards)}
        write_recipe(whole / f"{name}.yaml", shards, "ssgd", f"{more}\ndata: {data}")
    train_all(whole, ranks=2)
    folder = tmp_path_factory.mktemp("folder") / "changed"
    shutil.copytree(whole, folder)
    for change, ranks in enumerate((4, 1)):
        for name, (_, cuts, _) in ORDERS.items():
            killed_after(folder / name, cuts[change])
        train_all(folder, ranks=ranks)
    shutil.move(whole, folder / "whole")
    return folder


@pytest.mark.parametrize("name", ORDERS)
def test_ssgd_is_the_same_run_on_any_ranks(name: str, changed: Path) -> None:
    """2 -> 4 -> 1 learners, changed within epochs: losses and weights of 2 alone (float64)."""
    run, whole = changed / name, changed / "whole" / name
    _, cuts, epochs = ORDERS[name]
    for kind, field in (("train", "loss"), ("evaluation", "heldout_loss")):
        mine, others = (
            [line[field] for line in lines(r, kind) if line["epoch"] <= epochs]
            for r in (run, whole)
        )
        np.testing.assert_allclose(mine, others, rtol=1e-12)
    weights = weights_after(whole, epochs)
    for key, tensor in weights_after(run, epochs).items():
        torch.testing.assert_close(tensor, weights[key], rtol=0, atol=1e-12)
    result, other = summary(run), summary(whole)
    assert result["restarts"] == [
        {"updates": cuts[0], "from_learners": 2, "to_learners": 4},
        {"updates": cuts[1], "from_learners": 4, "to_learners": 1},
    ]
    assert other["restarts"] == []
    assert (result["learners"], result["samples"]) == (1, other["samples"])
    # 2 (n-1)/n of the weights for each of the updates that n learners made.
    per_update = other["bytes_sent"] / other["updates"]
    expected = per_update * (cuts[0] + 1.5 * (cuts[1] - cuts[0]))
    assert result["bytes_sent"] == pytest.approx(expected, rel=1e-6)


CASES = {
    "ssgd": "ssgd",
    "dpsgd": "dpsgd",
    "dpsgd delayed": "{name: dpsgd, topology: full, delayed: true}",
    "local_sgd momentum": "{name: local_sgd, steps: 3, momentum: 0.3}",
    "local_sgd sign": "{name: local_sgd, steps: 3, compression: sign}",
    "local_sgd blocks": "{name: local_sgd, steps: 1, block_steps: 3, block_size: 2, after: 1}",
    "majority_vote": "majority_vote\noptimizer: sign_sgd",
}


def test_every_strategy_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} == set(STRATEGIES)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each strategy: an epoch of two updates on 4 learners, one on 2, one on 3."""
    folder = tmp_path_factory.mktemp("restarted")
    shards = write_shards(folder / "shards", train=48)
    for name, strategy in CASES.items():
        write_recipe(folder / f"{name}.yaml", shards, strategy, "checkpoint: {keep_last: 99}")
    for epochs, ranks in ((1, 4), (2, 2), (3, 3)):
        train_all(folder, f"epochs={epochs}", ranks=ranks)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_every_strategy_restarts_from_the_consensus(case: str, restarted: Path) -> None:
    """4 -> 2 -> 3 learners: each begins with the mean of those before, momentum and e_j too."""
    run = restarted / case
    seeds = {6, 7, 8, 9}  # of the run's start: seed + 1 + rank
    for epoch, ranks in ((1, 2), (2, 3)):
        before = checkpoint.at_epoch(run, epoch)
        states = [before.learner(j)["strategy"] for j in range(before.learners)]
        for rank in range(ranks):
            held = torch.load(run.with_suffix(f".{ranks}.{rank}"), weights_only=True)
            assert_mean(held["strategy"], states)
            assert held["seed"] not in seeds
            seeds.add(held["seed"])
    assert summary(run)["restarts"] == [
        {"updates": 2, "from_learners": 4, "to_learners": 2},
        {"updates": 4, "from_learners": 2, "to_learners": 3},
    ]
    assert summary(run)["updates"] == 6


def assert_mean(state: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Every float tensor of `state` is the others' mean; the rest is the first one's."""
    columns = [dict(leaves(other)) for other in others]
    for path, leaf in leaves(state):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            mean = np.mean([column[path].numpy() for column in columns], axis=0, dtype=np.float64)
            np.testing.assert_allclose(leaf.numpy(), mean, rtol=2e-7, atol=1e-30, err_msg=path)
        else:
            assert leaf == columns[0][path], path


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dicts and lists by their path; no messages that wait to be mixed."""
    if isinstance(tree, (dict, list)):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, branch in pairs:
            if key != "pending":
                yield from leaves(branch, f"{path}.{key}")
    else:
        yield path, tree


def forge_learners(folder: Path, learners: int) -> None:
    """Makes of one learner's checkpoint one of `learners` equal ones."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["learners"] = manifest["position"]["learners"] = learners
    (one,) = manifest["files"].items()
    for rank in range(1, learners):
        shutil.copy(folder / one[0], name := folder / f"learner-{rank:05d}.pt")
        manifest["files"][name.name] = one[1]
    del manifest["sha256"]
    checkpoint.write_manifest(folder, manifest)


def test_a_restart_says_what_it_does(shards: Path, tmp_path: Path, command: Launch) -> None:
    """One line; within an epoch also whose global batches it ends with."""
    more = "checkpoint: {every_steps: 4, keep_last: 99}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    words = ["train", recipe, "--resume", "--out", run]
    assert command(*words).returncode == 0
    line = "restarted from the consensus of 3 learners after {} updates, in epoch 2: "
    line += "momentum meaned, learners' random state new{}\n"
    order = "; this epoch's batches stay those of 3 learners"
    for updates, name, end in ((12, "step-00000012", order), (10, "epoch-0001", "")):
        killed_after(run, updates)
        forge_learners(run / "checkpoints" / name, 3)
        assert line.format(updates, end) in command(*words).stdout
        assert summary(run)["restarts"] == [
            {"updates": updates, "from_learners": 3, "to_learners": 1}
        ]


def test_a_restart_that_cannot_be_changes_nothing(
    shards: Path, tmp_path: Path, command: Launch, hpcddl: Launch
) -> None:
    """Learners that do not divide the global batch, or one that is missing: one line, no write."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    words = ["train", recipe, "global_batch=25", "epochs=4", "--out", run, "--resume"]
    assert command(*words).returncode == 0
    killed_after(run, 27)
    folder = run / "checkpoints" / "epoch-0003"
    forge_learners(folder, 2)
    before = times(run)
    refused(hpcddl(*words, ranks=2), "global_batch=25: must be a multiple of the 2 learners")
    lost = folder / "learner-00001.pt"
    del before[lost]
    lost.unlink()
    words_of_all = ("no checkpoint is whole", "epoch-0003/learner-00001.pt: missing")
    refused(command(*words), *words_of_all)
    assert times(run) == before


def times(run: Path) -> dict[Path, int]:
    """When each file of `run` was last written, but for the lock."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("shuffle", ["exact", "blocks"])
def test_a_learner_that_keeps_its_part_resumes_exactly(
    shuffle: str, shards: Path, tmp_path: Path, command: Launch
) -> None:
    """From the middle of an epoch: the weights of a run that was never stopped, to the bit."""
    more = "checkpoint: {every_steps: 4, keep_last: 99}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    order = [f"data.shuffle={shuffle}", "data.block=8", "data.buffer=24", "data.reshuffle=never"]
    words = ["train", recipe, *order, "--resume", "--out", run]
    assert command(*words).returncode == 0
    whole = summary(run)
    killed_after(run, 16)
    assert "resumed after 16 updates, in epoch 2" in command(*words).stdout
    assert summary(run)["weights_sha256"] == whole["weights_sha256"]


def test_checkpoints_of_the_version_before_are_resumed(
    shards: Path, tmp_path: Path, command: Launch
) -> None:
    """Version 3: no checksum of the manifest's own, nothing about the newest loss."""
    more = "checkpoint: {every_steps: 4, keep_last: 99}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    words = ["train", recipe, "--resume", "--out", run]
    assert command(*words).returncode == 0
    whole = summary(run)
    killed_after(run, 16)
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["version"] = 3
        del manifest["sha256"], manifest["log"]["last"]
        path.write_text(json.dumps(manifest))
    assert "resumed after 16 updates, in epoch 2" in command(*words).stdout
    assert summary(run)["weights_sha256"] == whole["weights_sha256"]


def test_a_run_whose_links_were_called_network_is_resumed(
    shards: Path, tmp_path: Path, command: Launch
) -> None:
    """By a recipe of either name, to the same weights; other links are refused as ever."""
    emulate, more = "emulate: {slow: {0: 1.5}}", "checkpoint: {keep_last: 99}"
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd", more), tmp_path / "run"
    words = ["train", recipe, "--resume", "--out", run]
    assert command(*words, f"network={{{emulate}}}").returncode == 0
    whole = summary(run)
    for name in ("links", "network"):
        killed_after(run, 10)
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["network"] = config.pop("links")
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        refused(command(*words), "--resume: links was {'emulate': {", "and is {'emulate': None}")
        done = command(*words, f"{name}={{{emulate}}}")
        assert "resumed after 10 updates, in epoch 2" in done.stdout
        assert summary(run)["weights_sha256"] == whole["weights_sha256"]
        after = yaml.safe_load((run / "config.yaml").read_text())
        assert after.pop("links") == config.pop("network")
        assert after == config


def test_resuming_a_finished_run_succeeds(shards: Path, tmp_path: Path, command: Launch) -> None:
    """It says so and changes nothing, also of a run that diverged; a lost summary is made again."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "dpsgd"), tmp_path / "run"
    words = ["train", recipe, "--resume", "--out", run]
    assert command(*words).returncode == 0
    before, metrics = summary(run), (run / "metrics.jsonl").read_bytes()
    done = command(*words)
    assert done.returncode == 0
    assert done.stdout == f"run {run} has finished: {run}/summary.json; to go on, raise epochs\n"
    assert summary(run) == before

    (run / "summary.json").unlink()
    done = command(*words)
    assert done.returncode == 0
    assert "resumed after 30 updates, with the last evaluation" in done.stdout
    again = summary(run)
    assert {k: v for k, v in again.items() if k not in TIMES} == {
        k: v for k, v in before.items() if k not in TIMES
    }
    assert (run / "metrics.jsonl").read_bytes() == metrics

    fewer = command("train", recipe, "epochs=2", *words[2:])
    refused(fewer, "epochs=2", "epoch-0003 is beyond them", "raise epochs")
    assert json.loads((run / "summary.json").read_text()) == again

    words = ["train", recipe, "schedule.rate=1e30", "--out", tmp_path / "diverged", "--resume"]
    assert "diverged (training loss" in command(*words).stdout
    assert "has finished" in command(*words).stdout
