"""Channels last and torch.compile change kernels, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcddl.common.errors import UserError
from hpcddl.data.known import Contents
from hpcddl.data.manifest import labelled
from hpcddl.data.stand_in import write_stand_in
from hpcddl.models.resnet import resnet20
from hpcddl.training.accumulate import backward
from hpcddl.training.forward import check_compiler, forward
from tests.conftest import Launch

RECIPE = """\
epochs: 2
global_batch: 8
log_every: 1
model: resnet20
data: {{name: shards, path: {path}}}
optimizer: {{name: sgd, momentum: 0.9, weight_decay: 1.0e-4}}
schedule: {{name: constant, rate: 0.01}}
strategy: {{name: local_sgd, steps: 2, momentum: 0.5}}
batch_norm: {{name: recomputed, batches: 2}}
"""
MLP = ("model=mlp", "batch_norm=averaged")  # quick to compile


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    images = Contents("images", labelled((3, 8, 8), "uint8"), 10)
    write_stand_in(folder / "shards", images, {"train": 24, "heldout": 12})
    path = folder / "r.yaml"
    path.write_text(RECIPE.format(path=folder / "shards"))
    return path


def losses(run: Path) -> list[float]:
    records: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return [r["loss" if r["kind"] == "train" else "heldout_loss"] for r in records]


def test_runs_have_the_plain_ones_losses(recipe: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """All losses to 1e-5 in float32, the compiled run being taken up by a plain one half-way.

    Its checkpoints have the names of the plain network's weights.
    """
    plans: dict[str, list[tuple[str, ...]]] = {
        "plain": [()],
        "last": [("channels_last=true",)],
        "mlp": [MLP],
        "compiled": [(*MLP, "compile=true", "channels_last=true", "epochs=1"), (*MLP, "--resume")],
    }
    for name, plan in plans.items():
        for words in plan:
            done = hpcddl("train", recipe, *words, "--out", tmp_path / name, ranks=2)
            assert done.returncode == 0, done.stderr
    for plain, other in (("plain", "last"), ("mlp", "compiled")):
        expected = losses(tmp_path / plain)
        assert len(expected) == 8
        assert losses(tmp_path / other) == pytest.approx(expected, rel=1e-5)
    keys = [
        list(torch.load(path, weights_only=True)["strategy"]["model"])
        for name in ("mlp", "compiled")
        for path in (tmp_path / name / "checkpoints" / "epoch-0001").glob("*.pt")
    ]
    assert len(keys) == 2 * 2
    assert all(names == keys[0] for names in keys)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_lie_as_their_weights_do(parts: int) -> None:
    """Fused optimizers and Horovod go through both in the order of memory."""
    torch.manual_seed(0)
    model = resnet20((3, 8, 8), 10)
    network = forward(model, (3, 8, 8), channels_last=True, compiled=False, autocast=None)
    backward(network, torch.rand(4, 3, 8, 8), torch.arange(4), parts)
    for p in model.parameters():
        assert p.is_contiguous()
        assert p.grad is not None
        assert p.grad.stride() == p.stride()


@pytest.mark.parametrize("shape", [(21, 40), (300,), (30,), (1, 8, 8)])
def test_channels_last_needs_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="channels_last=true: takes images of several channels"):
        forward(torch.nn.Identity(), shape, channels_last=True, compiled=False, autocast=None)


def test_compile_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"compile=true: needs a C\+\+ compiler, and g\+\+ is not"):
        check_compiler({})
    with pytest.raises(UserError, match=r"and icpx is not on PATH"):
        check_compiler({"CXX": "icpx"})
