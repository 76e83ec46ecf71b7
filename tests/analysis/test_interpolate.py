"""The line between two runs: its ends are the runs themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpcddl.analysis.line import Line, Losses, interpolate
from hpcddl.analysis.sample_loss import draw_sample, loss_and_error
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.flat import FlatWeights
from tests.analysis.known_loss import InMemory, Quadratic, of_class_zero, run_folder, trained_of

LINE = Line(
    begin=-1.0,
    end=2.0,
    points=4,
    samples=100,
    batch=None,
    batch_norm="interpolated",
    statistics_batches=2,
    seed=0,
)


def line_through(
    a: nn.Module, b: nn.Module, data: InMemory, tmp_path: Path, **changes: Any
) -> Losses:
    run = run_folder(tmp_path)
    ends = trained_of(a, data, World.create()), trained_of(b, data, World.create())
    line = Line(**{**vars(LINE), **changes})
    return interpolate((run, run), ends, line, tmp_path / f"{line.batch_norm}.points")


def test_a_quadratic_along_the_line(tmp_path: Path) -> None:
    """q((1 - t) w_A + t w_B), between the runs and beyond."""
    a, b = Quadratic(), Quadratic()
    vectors = [FlatWeights(model) for model in (a, b)]
    vectors[1].write(torch.linspace(-1, 1, 9, dtype=torch.float64))
    w_a, w_b = (weights.read(weights.empty()) for weights in vectors)
    found = line_through(a, b, of_class_zero(), tmp_path)
    expected = [float(a.q((1 - t) * w_a + t * w_b)) for t in LINE.at]
    np.testing.assert_allclose(found.heldout_loss, expected, rtol=1e-14)
    np.testing.assert_array_equal(found.train_loss, found.heldout_loss)


def batch_normed(seed: int) -> nn.Module:
    """With running statistics that no batch has."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(6)
    norm.running_mean = torch.randn(6)
    norm.running_var = 0.5 + torch.rand(6)
    return nn.Sequential(nn.Linear(5, 6), norm, nn.ReLU(), nn.Linear(6, 3)).double().eval()


def vectors() -> InMemory:
    drawn = torch.Generator().manual_seed(0)
    features = torch.randn(8, 5, generator=drawn, dtype=torch.float64)
    return InMemory(features, torch.randint(3, (8,), generator=drawn))


def test_the_ends_are_the_runs_with_their_own_statistics(tmp_path: Path) -> None:
    """At t = 0 and 1 loss and error of each run, where statistics are interpolated."""
    sample = draw_sample(vectors(), 8, 0, torch.device("cpu"))
    own = [loss_and_error(batch_normed(seed), sample, 4) for seed in (1, 2)]
    found = line_through(batch_normed(1), batch_normed(2), vectors(), tmp_path)
    ends = list(zip(found.heldout_loss[1:3], found.heldout_error[1:3], strict=True))
    np.testing.assert_allclose(ends, own, rtol=1e-12)


def test_recomputed_statistics_are_each_point_s_own(tmp_path: Path) -> None:
    """What torch's update_bn computes at (1 - t) w_A + t w_B; the runs' own play no part."""
    found = line_through(
        batch_normed(1), batch_normed(2), vectors(), tmp_path, batch_norm="recomputed", batch=8
    )
    sample = draw_sample(vectors(), 8, 0, torch.device("cpu"))
    between = batch_normed(1)
    weights, other = FlatWeights(between), FlatWeights(batch_normed(2))
    w_a, w_b = (flat.read(flat.empty()) for flat in (weights, other))
    for t, loss in zip(LINE.at, found.train_loss, strict=True):
        weights.write((1 - t) * w_a + t * w_b)
        torch.optim.swa_utils.update_bn([sample.features], between)
        assert loss == pytest.approx(loss_and_error(between.eval(), sample, 8)[0], rel=1e-9)
    assert "2 training" not in found.facts["batch_norm"]  # all samples are one batch
    assert "1 training" in found.facts["batch_norm"]


def test_two_networks_have_no_line(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    narrow = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with pytest.raises(UserError, match=r"0\.weight \(6, 5\) where .* has 0\.weight \(7, 5\)"):
        line_through(wide, narrow, vectors(), tmp_path)
    with pytest.raises(UserError, match="another number of layers"):
        line_through(narrow, narrow[:1], vectors(), tmp_path)
