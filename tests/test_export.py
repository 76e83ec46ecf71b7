"""`hpcddl export`: files that give a network's scores again, or are not there."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpcddl.cli import main
from hpcddl.cluster.world import World
from hpcddl.commands import export
from hpcddl.data.network_input import network_input
from hpcddl.run.trained import load_trained
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

MODELS = {
    "bilstm": ("frames", {"layers": 2, "cells": 8, "bottleneck": 8}),
    "resnet20": ("cifar", {}),
    "logistic_regression": ("libsvm", {}),
    "lstm_lm": ("wikitext", {"layers": 1, "cells": 8}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> dict[str, Path]:
    """A run of each network, one epoch of two learners that do not agree."""
    folder = tmp_path_factory.mktemp("export")
    made = {}
    for model, (data, options) in MODELS.items():
        shards, out = folder / data, folder / model
        if data == "frames":
            write_shards(shards)
        else:
            size = "9600" if data == "wikitext" else "96"
            assert main(["prep", data, "--synthetic", size, "--out", str(shards)]) == 0
        recipe = write_recipe(folder / f"{model}.yaml", shards, "dpsgd")
        words = [f"model={json.dumps({'name': model, **options})}", "schedule.rate=0.01"]
        words += ["data.name=text", f"data.path={shards}"] if data == "wikitext" else []
        done = hpcddl("train", recipe, *words, "epochs=1", "--out", out, ranks=2)
        assert done.returncode == 0, done.stderr
        made[model] = out
    return made


def reload(path: Path) -> nn.Module:
    if path.suffix == ".safetensors":
        return export.rebuild(path)
    return torch.export.load(path).module()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2"])
@pytest.mark.parametrize("model", MODELS)
def test_round_trip(
    runs: dict[str, Path], model: str, suffix: str, tmp_path: Path, command: Launch
) -> None:
    """For batches of any size the file gives the scores of the consensus of both learners."""
    path = tmp_path / f"network{suffix}"
    done = command("export", runs[model], "--out", path)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    trained = load_trained(runs[model], World.create())
    again = reload(path)
    for batch in (1, 2, 7):
        samples, _ = trained.heldout.batch(np.arange(batch))
        with torch.no_grad():
            inputs = network_input(samples, torch.float32)
            own = trained.network(inputs)
            torch.testing.assert_close(again(inputs), own, rtol=1e-5, atol=1e-6)


def test_metadata_says_where_the_weights_are_from(
    runs: dict[str, Path], tmp_path: Path, command: Launch
) -> None:
    """The config in the file is the run's, and every tensor of the network is there once."""
    from safetensors import safe_open

    path = tmp_path / "a.safetensors"
    assert command("export", runs["resnet20"], "--out", path).returncode == 0
    state = load_trained(runs["resnet20"], World.create()).model.state_dict()
    with safe_open(path, "pt") as file:
        head = json.loads(file.metadata()["hpcddl"])
        assert set(file.keys()) == set(state)
        for name, tensor in state.items():
            torch.testing.assert_close(file.get_tensor(name), tensor, rtol=0, atol=0)
    assert head["config"]["global_batch"] == 24
    assert head["sample"] == [3, 32, 32]
    assert head["updates"] == 4


def test_two_ranks_write_one_file(runs: dict[str, Path], tmp_path: Path, hpcddl: Launch) -> None:
    """The same bytes as one rank writes."""
    for ranks in (1, 2):
        path = tmp_path / f"{ranks}.safetensors"
        assert hpcddl("export", runs["bilstm"], "--out", path, ranks=ranks).returncode == 0
    one, two = (tmp_path / f"{ranks}.safetensors" for ranks in (1, 2))
    assert one.read_bytes() == two.read_bytes()


def test_a_file_that_gives_other_scores_is_not_left(
    runs: dict[str, Path], tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier file of the name stays as it was."""
    path = tmp_path / "a.safetensors"
    path.write_text("before")

    def damaged(path: Path) -> nn.Module:
        model = export.rebuild(path)
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return model

    format = export.FORMATS["safetensors"]._replace(read=damaged)
    monkeypatch.setitem(export.FORMATS, "safetensors", format)
    done = command("export", runs["resnet20"], "--out", path)
    assert done.returncode == 2
    assert "read back, its scores differ by" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "before"


def test_a_missing_package_is_one_line(
    runs: dict[str, Path], tmp_path: Path, command: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    done = command("export", runs["bilstm"], "--out", tmp_path / "a.safetensors")
    assert done.returncode == 2
    assert "pip install safetensors" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.bin", "suffix '.bin'; allowed without --format: .safetensors, .pt2"),
        ("none/a.pt2", "cannot be written: No such file"),
    ],
)
def test_bad_names_are_one_line(
    runs: dict[str, Path], out: str, message: str, tmp_path: Path, command: Launch
) -> None:
    done = command("export", runs["bilstm"], "--out", tmp_path / out)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
