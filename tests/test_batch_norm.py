"""Recomputed batch-norm statistics on one learner, and what a run reports of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.training.batch_norm import Recomputed, recomputed
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

Batches = list[tuple[Tensor, Tensor]]


def network(dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout)
    model = nn.Sequential(*layers, nn.Linear(36, 6), nn.BatchNorm1d(6, momentum=0.3)).double()
    model(torch.randn(8, 2, 5, 5, dtype=torch.float64))  # statistics worth keeping
    return model


def batches(count: int) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(7, 2, 5, 5, generator=generator, dtype=torch.float64), torch.zeros(7))
        for _ in range(count)
    ]


def stream(of: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    yield from of


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_is_torchs_own_update() -> None:
    """The statistics inside are those of update_bn on the same batches, with dropout off."""
    model, reference = network(), network(dropout=0.0)
    update_bn(batches(5), reference)
    expected = statistics(reference)
    with recomputed(model, "x", 9, batches=5).inside(model, stream(batches(7)), World.create()):
        inside = statistics(model)
    for name in expected:
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(inside[name], expected[name], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(fails: bool) -> None:
    """Statistics, momentum, modes and the random state are the same bits after, error or not."""
    model = network()
    before, random = statistics(model), torch.get_rng_state()
    try:
        with recomputed(model, "x", 9, batches=3).inside(model, stream(batches(3)), World.create()):
            assert not torch.equal(model[1].running_mean, before["1.running_mean"])
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        assert fails
    after = statistics(model)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [model[1].momentum, model[5].momentum] == [0.1, 0.3]
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_refuses_what_has_none_and_more_than_there_is() -> None:
    with pytest.raises(UserError, match="model plain has no batch norm; must be averaged"):
        recomputed(nn.Linear(2, 2), "plain", 9)
    untracked = nn.BatchNorm1d(2, track_running_stats=False)
    with pytest.raises(UserError, match="no batch norm"):
        recomputed(untracked, "plain", 9)
    with pytest.raises(UserError, match=r"batch_norm.batches=10: must not exceed the 9 batches"):
        recomputed(network(), "x", 9, batches=10)
    assert isinstance(recomputed(network(), "x", 9, batches=9), Recomputed)


@pytest.fixture
def recipe(command: Callable[..., CompletedProcess[str]], tmp_path: Path) -> Path:
    """ResNet-20 with DPSGD on synthetic images of 8 x 8 pixels."""
    shards = tmp_path / "images"
    assert command("prep", "digits", "--synthetic", 96, "--out", shards).returncode == 0
    return write_recipe(
        tmp_path / "r.yaml", shards, "dpsgd", "model: {name: resnet20, mean: [128], std: [64]}"
    )


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    every = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in every if record["kind"] == kind]


def test_shows_both_and_changes_nothing_else(recipe: Path, tmp_path: Path, hpcddl: Launch) -> None:
    """Training and the evaluation with averaged statistics are those of a run without, by bits."""
    one, other = tmp_path / "averaged", tmp_path / "recomputed"
    plain = hpcddl("train", recipe, "batch_norm=averaged", "--out", one, ranks=2)
    both = hpcddl(
        "train", recipe, "batch_norm={name: recomputed, batches: 5}", "--out", other, ranks=2
    )
    assert (plain.returncode, both.returncode) == (0, 0), plain.stderr + both.stderr
    assert "with averaged statistics" not in plain.stdout
    hashes = [
        json.loads((run / "summary.json").read_text())["weights_sha256"] for run in (one, other)
    ]
    assert hashes[0] == hashes[1]
    for a, b in zip(records(one, "train"), records(other, "train"), strict=True):
        assert a["loss"] == b["loss"]
    pairs = zip(records(one, "evaluation"), records(other, "evaluation"), strict=True)
    for epoch, (a, b) in enumerate(pairs, 1):
        assert "heldout_loss_averaged_statistics" not in a
        assert b["heldout_loss_averaged_statistics"] == a["heldout_loss"] != b["heldout_loss"]
        shown = (
            f"epoch {epoch}/3: held-out loss {b['heldout_loss']:.4f} "
            f"(with averaged statistics: {a['heldout_loss']:.4f})"
        )
        assert shown in both.stdout


def test_a_network_without_is_refused(
    command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """One line that names the model, and no run directory."""
    shards = write_shards(tmp_path / "shards")
    recipe = write_recipe(tmp_path / "r.yaml", shards, "dpsgd", "batch_norm: recomputed")
    done = command("train", recipe, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "model bilstm has no batch norm; must be averaged" in done.stderr
    assert not (tmp_path / "run").exists()
