"""Landscapes of losses whose shape is known, and their tables and pictures."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpcddl.analysis.directions import random_direction
from hpcddl.analysis.landscape_plot import MOST_CONTOURS, draw, levels
from hpcddl.analysis.landscape_report import table, write
from hpcddl.analysis.sample_loss import batch_statistics, draw_sample, loss_and_error
from hpcddl.analysis.several_runs import distinct_names
from hpcddl.analysis.surface import Landscape, SurfacePlan, survey
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.flat import FlatWeights
from hpcddl.common.study import StudyFolder
from tests.analysis.known_loss import InMemory, Quadratic, of_class_zero, run_folder, trained_of

PLAN = SurfacePlan(
    points=5,
    scale=0.5,
    directions=0,
    normalise="filter",
    of="heldout",
    samples=100,
    batch=None,
    batch_norm="eval",
    seed=3,
)


def of_quadratic(plan: SurfacePlan, tmp_path: Path) -> tuple[Landscape, Quadratic]:
    model = Quadratic()
    trained = trained_of(model, of_class_zero(), World.create())
    return survey("run", run_folder(tmp_path), trained, plan, tmp_path / "run.points"), model


@pytest.mark.parametrize("normalise", ["filter", "none"])
def test_the_grid_is_the_quadratic_itself(normalise: str, tmp_path: Path) -> None:
    """L(w_a + a d_1 + b d_2) at every place, exact to rounding; the weights are back after it."""
    plan = replace(PLAN, normalise=normalise)
    found, model = of_quadratic(plan, tmp_path)
    weights = FlatWeights(model)
    w = weights.read(weights.empty())
    one, other = (random_direction(model, 3 + k, normalise) for k in (0, 1))
    expected = [[float(model.q(w + a * one + b * other)) for b in plan.along] for a in plan.along]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-14)
    assert found.centre[0] == pytest.approx(float(model.q(w)), rel=1e-14)
    assert found.mean_rise == pytest.approx(np.mean(expected) - float(model.q(w)), rel=1e-12)
    assert torch.equal(w, weights.read(weights.empty()))


def test_profiles_are_parabolas(tmp_path: Path) -> None:
    """Along d: q + a g.d + a^2 d.H d / 2, its own direction for each of the lines."""
    plan = replace(PLAN, directions=3)
    found, model = of_quadratic(plan, tmp_path)
    weights = FlatWeights(model)
    w = weights.read(weights.empty())
    for k, line in enumerate(found.loss):
        d = random_direction(model, 3 + k, "filter")
        slope, curvature = float(model.h * w @ d), float(model.h * d @ d)
        expected = found.centre[0] + slope * plan.along + curvature * plan.along**2 / 2
        np.testing.assert_allclose(line, expected, rtol=1e-13)


def batch_normed(scale: torch.Tensor) -> nn.Module:
    """A network on images in which each filter's length is lost in batch norm."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4, eps=1e-14)
    layers = nn.Conv2d(1, 4, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[0].weight *= scale[:, None, None, None]
    return model


def rectified(scale: float) -> nn.Module:
    """A network of which one layer is `scale` times, the next 1 / `scale` times as long."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[1].weight *= scale
        model[1].bias *= scale
        model[3].weight /= scale
    return model


def images() -> InMemory:
    drawn = torch.Generator().manual_seed(0)
    features = torch.randn(9, 1, 4, 4, generator=drawn, dtype=torch.float64)
    return InMemory(features, torch.randint(3, (9,), generator=drawn))


@pytest.mark.parametrize("network", ["batch norm", "rectified"])
def test_filter_normalisation_forgets_lengths_that_do_not_matter(
    network: str, tmp_path: Path
) -> None:
    """Two sets of weights of one function have one landscape (Li et al. 2018); not without."""

    def landscape(scale: float, normalise: str) -> np.ndarray:
        model = rectified(scale)
        if network == "batch norm":
            model = batch_normed(scale ** torch.arange(4, dtype=torch.float64))
        plan = replace(PLAN, normalise=normalise, batch_norm="train")
        trained = trained_of(model, images(), World.create())
        kept = tmp_path / f"{scale}-{normalise}.points"
        return survey("run", run_folder(tmp_path), trained, plan, kept).loss

    np.testing.assert_allclose(landscape(3.0, "filter"), landscape(1.0, "filter"), rtol=1e-9)
    plain = [landscape(scale, "none") for scale in (3.0, 1.0)]
    assert np.abs(plain[0] - plain[1]).max() > 0.01


def test_statistics_of_each_batch_leave_the_running_ones_alone() -> None:
    """Inside, scores are those of batch norm in training mode; outside all is as before."""
    model = batch_normed(torch.ones(4)).eval()
    sample = draw_sample(images(), 100, 0, torch.device("cpu"))
    before = loss_and_error(model, sample, 9)
    with batch_statistics(model):
        inside = loss_and_error(model, sample, 9)
    assert loss_and_error(model, sample, 9) == before
    model.train()
    with torch.no_grad():
        scores = model(sample.features)
    expected = nn.functional.cross_entropy(scores, sample.labels)
    assert inside[0] == pytest.approx(float(expected), rel=1e-13)
    assert abs(inside[0] - before[0]) > 1e-3


def test_a_sample_is_drawn_once_and_cut_evenly() -> None:
    """Without replacement, by the seed; batches of sizes that differ by one."""
    numbers = torch.arange(50)
    chosen = draw_sample(InMemory(numbers, numbers), 23, 4, torch.device("cpu"))
    assert len(set(chosen.labels.tolist())) == 23
    assert [len(labels) for _, labels in chosen.batches(10)] == [8, 8, 7]
    again = draw_sample(InMemory(numbers, numbers), 23, 4, torch.device("cpu"))
    assert torch.equal(chosen.labels, again.labels)
    assert len(draw_sample(InMemory(numbers, numbers), 99, 4, torch.device("cpu"))) == 50


def test_numbers_and_picture(tmp_path: Path) -> None:
    """A row per place; a run whose loss is not finite anywhere is left blank."""
    found, _ = of_quadratic(PLAN, tmp_path)
    lost = replace(found, name="lost", loss=np.full((5, 5), np.nan), centre=(np.nan, 1.0))
    folder = StudyFolder(tmp_path)
    for plan in (PLAN, replace(PLAN, directions=5)):
        write([found, lost], plan, folder)
        draw([found, lost], plan, folder, None, log=True)
        assert (tmp_path / "landscape.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "landscape.pdf").read_bytes().startswith(b"%PDF")
        with open(tmp_path / "run.csv") as file:
            rows = list(csv.DictReader(file))
        np.testing.assert_array_equal([float(row["loss"]) for row in rows], found.loss.ravel())
    said = json.loads((tmp_path / "landscape.json").read_text())["runs"]
    assert said[0]["greatest"] == found.loss.max()
    assert said[1]["mean_rise"] is None
    assert "7 of 7 held-out samples; batch norm: the network has none" in table([found], PLAN)


def test_contours_are_multiples_of_their_spacing() -> None:
    """Round numbers around all that is drawn; of too many the lowest."""
    np.testing.assert_allclose(levels(0.101, 0.119, 0.005), [0.1, 0.105, 0.11, 0.115, 0.12])
    np.testing.assert_allclose(levels(0.3, 2.2, None), np.arange(0.2, 2.3, 0.2))
    assert len(levels(1.0, 1.0, None)) == 2
    assert len(levels(0.0, 1e6, 0.005)) == MOST_CONTOURS + 1


def test_runs_are_told_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "ssgd", tmp_path / "b" / "ssgd"
    assert distinct_names([a]) == ["ssgd"]
    assert distinct_names([a, tmp_path / "a" / "dpsgd"]) == ["ssgd", "dpsgd"]
    assert distinct_names([a, b]) == ["a-ssgd", "b-ssgd"]
    with pytest.raises(UserError, match="given twice"):
        distinct_names([a, b, a])
