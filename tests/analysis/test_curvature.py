"""`hpcddl analyze curvature`: the command, on runs of a tiny network."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.sample_loss import draw_sample
from hpcddl.analysis.spectral_density import rademacher
from hpcddl.cluster.world import World
from hpcddl.common.files import sha256
from hpcddl.common.flat import FlatWeights
from hpcddl.run.checkpoint import write_manifest
from hpcddl.run.trained import load_trained
from hpcddl.training.evaluate import classification_loss
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

Array = np.ndarray


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, hpcddl: Launch) -> Path:
    """Two learners of a network in float64, whose Hessian can be written out."""
    folder = tmp_path_factory.mktemp("curvature")
    shards = write_shards(folder / "shards")
    recipe = write_recipe(folder / "r.yaml", shards, "{name: dpsgd, topology: ring}")
    small = ("model.cells=2", "model.bottleneck=2", "dtype=float64", "epochs=1")
    done = hpcddl("train", recipe, *small, "--out", folder / "run", ranks=2)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def dense_hessian(run: Path, samples: int, seed: int, offset: tuple[float, float]) -> Array:
    """(d, d) the Hessian of the training loss, `offset` from the consensus."""
    trained = load_trained(run, World.create())
    model = trained.model
    weights = FlatWeights(model)
    sample = draw_sample(trained.train_set, samples, seed, torch.device("cpu"))
    directions = [random_direction(model, seed + k, "filter") for k in range(2)]
    place = weights.read(weights.empty())
    for at, direction in zip(offset, directions, strict=True):
        place += at * direction
    weights.write(place)
    loss = classification_loss(model(sample.features.double()), sample.labels)
    gradient = torch.autograd.grad(loss, weights.parameters, create_graph=True)
    rows = [
        torch.cat(
            [r.flatten() for r in torch.autograd.grad(g, weights.parameters, retain_graph=True)]
        )
        for g in torch.cat([g.flatten() for g in gradient])
    ]
    return torch.stack(rows).numpy()


@pytest.mark.thorough
@pytest.mark.parametrize("ranks", [1, 3])
def test_finds_the_dense_spectrum(run: Path, ranks: int, hpcddl: Launch, tmp_path: Path) -> None:
    """At the consensus and at each point of the grid, on any number of ranks."""
    asked = ("--samples", 10, "--seed", 4, "--top", 3, "--tolerance", 1e-6, "--out", tmp_path)
    more = ("--density", "--probes", 3, "--steps", 6, "--grid", 2, "--scale", 0.3)
    done = hpcddl("analyze", "curvature", run, *asked, *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "curvature.json").read_text())["runs"]
    hessian = dense_hessian(run, 10, 4, (0, 0))
    dense = np.linalg.eigvalsh(hessian)
    assert found["weights"] == len(dense)
    np.testing.assert_allclose(found["largest"], dense[:-4:-1], rtol=1e-8)
    assert found["least"] == pytest.approx(dense[0], rel=1e-6)
    assert found["ratio"] == pytest.approx(abs(dense[0]) / dense[-1], rel=1e-6)
    probes = np.stack([rademacher(len(hessian), 4, k) for k in range(3)])
    trace = np.einsum("pk,kl,pl->p", probes, hessian, probes).mean()
    assert found["trace"] == pytest.approx(trace, rel=1e-9)
    with open(tmp_path / "run.grid.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["along_first"], r["along_second"]) for r in rows] == [
        (a, b) for a in ("-0.3", "0.3") for b in ("-0.3", "0.3")
    ]
    for row in rows:
        offset = float(row["along_first"]), float(row["along_second"])
        dense = np.linalg.eigvalsh(dense_hessian(run, 10, 4, offset))
        assert float(row["lambda_max"]) == pytest.approx(dense[-1], rel=1e-8)
        assert float(row["lambda_min"]) == pytest.approx(dense[0], rel=1e-6)
    nodes = np.loadtxt(tmp_path / "run.density.csv", delimiter=",", skiprows=1)
    assert nodes.shape == (3 * 6, 3)
    np.testing.assert_allclose(np.bincount(nodes[:, 0].astype(int), nodes[:, 2]), 1, rtol=1e-12)
    for picture in ("density.png", "density.pdf", "grid.png", "grid.pdf"):
        assert (tmp_path / picture).stat().st_size > 5000
    assert "10 of 240 train samples" in done.stdout
    assert "batch norm: the network has none" in done.stdout


def test_the_same_run_twice_has_the_same_curvature(
    run: Path, command: Callable[..., object], tmp_path: Path
) -> None:
    """Nothing but the seed is drawn from."""
    found = []
    for number in range(2):
        out = tmp_path / str(number)
        command("analyze", "curvature", run, "--samples", 20, "--top", 2, "--out", out)
        (said,) = json.loads((out / "curvature.json").read_text())["runs"]
        found.append((said["largest"], said["least"], said["products"]))
    assert found[0] == found[1]


def test_what_cannot_be_done_is_one_line(run: Path, tmp_path: Path, command: Launch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for words, message in (
        ([tmp_path], f"run {tmp_path}: no config.yaml (not a run directory)"),
        ([run, run], f"run {run}: given twice"),
        ([run, "--top", 0], "--top: 0: must be a whole number, at least 1"),
        ([run, "--top", 100000], "--top: 100000: must be below the"),
        ([run, "--grid", 1], "--grid: 1: must be 0 or at least 2"),
        ([run, "--steps", 1], "--steps: 1: must be a whole number, at least 2"),
        ([run, "--tolerance", "nan"], "--tolerance: nan: must be above 0"),
        ([run, "--epoch", 9], "no checkpoint of epoch 9"),
        ([run, "--out", blocked / "out"], f"--out {blocked / 'out'}: cannot be written"),
    ):
        done = command("analyze", "curvature", *words)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_batch_statistics_are_another_hessian(tmp_path: Path, command: Launch) -> None:
    """Both modes say which they are; batches of one sample have no statistics."""
    shards, out = tmp_path / "shards", tmp_path / "run"
    assert command("prep", "digits", "--out", shards).returncode == 0
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    model = "model={name: resnet20, mean: [5.0], std: [6.0]}"
    words = (model, "schedule.rate=0.1", "epochs=1", "global_batch=512")
    assert command("train", recipe, *words, "--out", out).returncode == 0
    largest = []
    asked = ("--samples", 6, "--batch", 3, "--top", 1, "--tolerance", 0.1)
    for mode, said in (("eval", "the run's own evaluation's"), ("train", "each batch")):
        done = command("analyze", "curvature", out, *asked, "--batch-norm", mode)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        (found,) = json.loads((out / "analysis/curvature/curvature.json").read_text())["runs"]
        largest += found["largest"]
    assert largest[0] != pytest.approx(largest[1], rel=1e-3)
    done = command("analyze", "curvature", out, "--batch", 1, "--batch-norm", "train")
    assert done.returncode == 2
    assert "--batch: 1: with --batch-norm train must make batches of two" in done.stderr


def test_a_diverged_run_is_said_to_be(run: Path, tmp_path: Path, command: Launch) -> None:
    """Weights that are not finite have no Hessian."""
    copy = shutil.copytree(run, tmp_path / "copy")
    (manifest,) = copy.glob("checkpoints/*/manifest.json")
    said = json.loads(manifest.read_text())
    for name in said["files"]:
        path = manifest.with_name(name)
        state = torch.load(path, weights_only=True)
        state["strategy"]["model"]["output.bias"][0] = float("nan")
        torch.save(state, path)
        said["files"][name] = sha256(path)
    del said["sha256"]
    write_manifest(manifest.parent, said)
    done = command("analyze", "curvature", copy)
    assert done.returncode == 2
    assert "its gradient is not finite after 1 epochs: it has diverged" in done.stderr
