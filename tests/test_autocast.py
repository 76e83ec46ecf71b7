"""Mixed precision: what is computed in 16 bits, and how far that is from float32."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

from hpcddl.models.bilstm import bilstm
from hpcddl.models.resnet import resnet20
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.training.accumulate import backward
from hpcddl.training.autocast import Autocast
from tests.synthetic import write_recipe, write_shards

Command = Callable[..., CompletedProcess[str]]
# What the relative error of a gradient stays below, 20 layers deep, with 8 and with 11 bits.
TYPES = {torch.bfloat16: 0.2, torch.float16: 0.1}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["bilstm", "resnet20"])
def test_gradients_are_near_and_what_is_kept_is_float32(name: str, dtype: torch.dtype) -> None:
    """Scores, weights, gradients, statistics in float32; products in `dtype`, LSTM included."""
    torch.manual_seed(0)
    model: nn.Module
    if name == "bilstm":
        x, y = torch.randn(8, 5, 6), torch.randint(0, 10, (8, 5))
        model = bilstm((5, 6), 10, layers=2, cells=16, bottleneck=8)
    else:
        x, y = torch.rand(32, 3, 8, 8) * 255, torch.randint(0, 10, (32,))
        model = resnet20((3, 8, 8), 10)
    seen = []
    model.output.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    onednn = torch.backends.mkldnn.enabled
    exact = backward(model, x, y, 1)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    random = torch.get_rng_state()
    network = Autocast(model, dtype)
    assert torch.equal(torch.get_rng_state(), random)
    loss = backward(network, x, y, 1)
    assert seen == [torch.float32, dtype]
    assert loss.dtype == network(x).dtype == torch.float32
    kept = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    assert torch.backends.mkldnn.enabled == onednn
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(loss, exact, rtol=1e-3, atol=0)
    assert 0 < (found - gradient).norm() < TYPES[dtype] * gradient.norm()


@pytest.mark.parametrize("dtype", TYPES)
def test_an_lstm_without_onednn_is_one(dtype: torch.dtype) -> None:
    """torch's own kernels, which stand in where oneDNN has none for the type, compute the same."""
    torch.manual_seed(0)
    model = bilstm((5, 6), 10, layers=1, cells=8, bottleneck=8)
    network, x = Autocast(model, dtype), torch.randn(4, 5, 6)
    network.onednn = False
    torch.testing.assert_close(network(x), model(x), rtol=0, atol=0.01)


def test_a_run_ends_near_that_of_float32(command: Command, tmp_path: Path) -> None:
    """Within 0.02 nats, and its opening lines say what it computes in."""
    recipe = write_recipe(tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "ssgd")
    losses = []
    for precision in ("null", "bfloat16", "float16"):
        run = tmp_path / precision
        done = command("train", recipe, f"autocast={precision}", "--out", run)
        assert done.returncode == 0, done.stderr
        assert (f"mixed precision: products in {precision}" in done.stdout) == (precision != "null")
        assert ("loss scaled from 65536" in done.stdout) == (precision == "float16")
        losses.append(json.loads((run / "summary.json").read_text())["heldout_loss"])
    assert losses[0] < 2
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=0.02)
    assert len(set(losses)) == 3


def test_resumes_bit_for_bit(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float16 run goes on with the loss scale that it had come to, from one far too large."""
    monkeypatch.setattr("hpcddl.run.learner.LossScale", partial(LossScale, 2.0**30))
    recipe = write_recipe(
        tmp_path / "r.yaml", write_shards(tmp_path / "shards"), "dpsgd", "autocast: float16"
    )
    for run, epochs in (("whole", 3), ("paused", 2), ("paused", 3)):
        words = ("train", recipe, f"epochs={epochs}", "--resume", "--out", tmp_path / run)
        assert command(*words).returncode == 0
    records = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "paused")
    ]
    for key in ("loss", "loss_scale", "heldout_loss"):
        assert [r.get(key) for r in records[0]] == [r.get(key) for r in records[1]]
    assert records[0][-2]["loss_scale"] < 2.0**30
    assert all(r["loss"] is not None for r in records[0] if r["kind"] == "train")


def test_refuses_to_narrow_float64(command: Command, tmp_path: Path) -> None:
    """torch.autocast would silently leave it as it is."""
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path, "ssgd", "autocast: float16")
    done = command("train", recipe, "dtype=float64", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "autocast=float16: needs dtype=float32, not float64" in done.stderr
