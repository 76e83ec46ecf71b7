"""`hpcddl evaluate`: what a run said of itself at the end, from its directory alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcddl.cluster.world import World
from hpcddl.run.trained import load_trained
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

KEYS = ("heldout_loss", "heldout_accuracy")


def train(hpcddl: Launch, ranks: int, *words: object) -> None:
    done = hpcddl("train", *words, ranks=ranks)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> Path:
    """A run of two learners whose weights differ, with the checkpoints of all three epochs."""
    folder = tmp_path_factory.mktemp("evaluate")
    strategy = "{name: dpsgd, topology: ring}\ncheckpoint: {keep_epochs: [1, 2]}"
    recipe = write_recipe(folder / "r.yaml", write_shards(folder / "shards"), strategy)
    train(hpcddl, 2, recipe, "--out", folder / "run")
    return folder / "run"


def evaluations(run: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "evaluation"]


def close(found: dict[str, Any], said: dict[str, Any]) -> None:
    for key in KEYS:
        np.testing.assert_allclose(found[key], said[key], rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("ranks", [1, 3])
def test_equals_the_run_s_own_evaluation(run: Path, ranks: int, hpcddl: Launch) -> None:
    """On any number of ranks, to the rounding of a mean over two learners in float32."""
    done = hpcddl("evaluate", run, "--json", ranks=ranks)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    close(found, evaluations(run)[-1])
    summary = json.loads((run / "summary.json").read_text())
    for key in ("prior_loss", "prior_accuracy", "heldout_predictions", "updates", "classes"):
        assert found[key] == pytest.approx(summary[key]), key


def test_an_earlier_epoch(run: Path, command: Launch) -> None:
    """--epoch N is the N-th evaluation."""
    for epoch in (1, 2):
        done = command("evaluate", run, "--epoch", epoch, "--json")
        close(json.loads(done.stdout), evaluations(run)[epoch - 1])


def test_recomputed_statistics_are_those_of_the_run(tmp_path: Path, hpcddl: Launch) -> None:
    """Batch norm recomputed over two learners' batches is the same on one rank and on three."""
    shards, out = tmp_path / "shards", tmp_path / "run"
    assert hpcddl("prep", "cifar", "--synthetic", "96", "--out", shards).returncode == 0
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd", "batch_norm: recomputed")
    words = ("model=resnet20", "schedule.rate=0.1", "epochs=1", "batch_norm.batches=3")
    train(hpcddl, 2, recipe, *words, "--out", out)
    for ranks in (1, 3):
        done = hpcddl("evaluate", out, "--json", ranks=ranks)
        assert done.returncode == 0, done.stderr
        # Statistics are summed in another order, and weights meaned in another precision.
        found, said = json.loads(done.stdout), evaluations(out)[-1]
        assert found["heldout_loss"] == pytest.approx(said["heldout_loss"], rel=1e-5)
        averaged = said["heldout_loss_averaged_statistics"]
        assert abs(found["heldout_loss"] - averaged) > 1e-3


def test_top5_counts_labels_among_the_five_best(run: Path, command: Launch) -> None:
    """Equal to a full sort of the scores of every held-out frame."""
    found = json.loads(command("evaluate", run, "--json").stdout)
    trained = load_trained(run, World.create())
    features, labels = trained.heldout.batch(np.arange(len(trained.heldout)))
    with torch.no_grad():
        scores = trained.network(features)
    best = scores.argsort(-1, descending=True)
    right = [(best[..., :count] == labels[..., None]).any(-1).double().mean() for count in (1, 5)]
    assert found["heldout_accuracy"] == pytest.approx(float(right[0]))
    assert found["heldout_top5_accuracy"] == pytest.approx(float(right[1]))
    assert right[0] < right[1] < 1


def test_data_that_has_moved(run: Path, tmp_path: Path, command: Launch) -> None:
    """--data PATH stands for the path in config.yaml."""
    shutil.copytree(run.parent / "shards", tmp_path / "moved")
    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(run.parent), "/nowhere"))
    assert command("evaluate", tmp_path / "run").returncode == 2
    done = command("evaluate", tmp_path / "run", "--data", tmp_path / "moved", "--json")
    close(json.loads(done.stdout), evaluations(run)[-1])


def test_text_for_people(run: Path, command: Launch) -> None:
    done = command("evaluate", run)
    assert f"held-out loss {evaluations(run)[-1]['heldout_loss']:.4f}" in done.stdout
    assert "among the best five" in done.stdout


def test_what_cannot_be_evaluated_is_one_line(run: Path, tmp_path: Path, command: Launch) -> None:
    other = tmp_path / "other"
    assert command("prep", "digits", "--out", other).returncode == 0
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(run / "config.yaml", fresh)
    for words, message in (
        ([tmp_path], f"run {tmp_path}: no config.yaml (not a run directory)"),
        ([fresh], f"run {fresh}: no checkpoint yet"),
        ([run, "--epoch", "9"], "no checkpoint of epoch 9; kept: 1, 2, 3"),
        ([run, "--data", other, "--other-data"], "model bilstm: takes windows of frames"),
        ([run, "--hop", "3"], "--hop: only with --posteriors"),
    ):
        done = command("evaluate", *words)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
