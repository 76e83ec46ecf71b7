"""Leaving a saddle: the loss, the closed forms, and the study end to end."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcddl.communication.topology import TOPOLOGIES, Topology
from hpcddl.reproduce.saddle_learners import consensus_paths, leaving_times
from hpcddl.reproduce.saddle_problem import Saddle, SaddleSetting, kicks, median_time, staying
from tests.conftest import Launch

SETTING = SaddleSetting(learners=8, local_batch=8, rate=0.5, start=1e-4, left=0.5, updates=2000)
FULL = Saddle(samples=64)  # nB = N


def pairs(learners: int, name: str = "random_pair") -> Callable[[int], Topology]:
    return partial(TOPOLOGIES[name], learners)


def sample_loss(saddle: Saddle, w: torch.Tensor) -> torch.Tensor:
    """(N,) f_i as the module's docstring has it."""
    p, q = map(torch.from_numpy, saddle.signs())
    x, y = w
    shared = saddle.a * x**2 / 2 - saddle.b * y**2 / 2 + saddle.c * saddle.b * y**4 / 4
    return shared + saddle.sigma * p * x + saddle.kappa * q * x * y + saddle.tau * q * y


def test_gradients_are_those_of_the_samples() -> None:
    """Of mini-batches by autograd; over all samples the loss is L, without any sign."""
    saddle = Saddle(samples=16, tau=0.3)
    w = torch.tensor([0.7, -1.2], dtype=torch.float64, requires_grad=True)
    chosen = [1, 2, 7]
    (expected,) = torch.autograd.grad(sample_loss(saddle, w)[chosen].mean(), w)
    p, q = (signs[chosen].mean() for signs in saddle.signs())
    found = saddle.gradient(w.detach().numpy(), p, q)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-14)
    mean = sample_loss(saddle, w).mean().item()
    assert mean == pytest.approx(float(saddle.loss(np.array(0.7), np.array(-1.2))), rel=1e-14)


@pytest.mark.parametrize(
    ("place", "hessian"),
    [((0.0, 0.0), [1.0, -0.1]), ((0.0, 1.0), [1.0, 0.2]), ((0.0, -1.0), [1.0, 0.2])],
)
def test_a_strict_saddle_between_two_minima(
    place: tuple[float, float], hessian: list[float]
) -> None:
    """The gradient is 0, the Hessian diag(a, -b) at the saddle and diag(a, 2b) at the minima."""
    saddle = Saddle()
    w = torch.tensor(place, dtype=torch.float64)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return sample_loss(saddle, at).mean()

    np.testing.assert_allclose(torch.func.grad(loss)(w), 0, atol=1e-15)
    found = torch.autograd.functional.hessian(loss, w)
    np.testing.assert_allclose(found, np.diag(hessian), atol=1e-14)


def test_ssgd_with_all_samples_follows_the_closed_form() -> None:
    """Without noise and quartic term |y(t)| = (1 + alpha b)^t |y(0)|, to the very update."""
    saddle, seeds = replace(FULL, c=0.0), range(20)
    paths = list(islice(consensus_paths(saddle, SETTING, "SSGD", pairs(8), 0.0, seeds), 2))
    start = np.abs(paths[0][:, 1])
    expected = np.ceil(np.log(SETTING.left / start) / np.log(1 + SETTING.rate * saddle.b))
    paths = consensus_paths(saddle, SETTING, "SSGD", pairs(8), 0.0, seeds)
    np.testing.assert_array_equal(leaving_times(paths, SETTING), expected)
    assert len(set(expected)) > 5


@pytest.mark.parametrize("name", ["full", "ring", "random_pair"])
def test_dpsgd_leaves_when_the_spread_of_its_learners_says(name: str) -> None:
    """The part still at the saddle is P(T > t), to the scatter of 200 seeds; medians to a tenth."""
    made, seeds = pairs(8, name), 200
    kick = kicks(FULL, SETTING, made(0))
    times = leaving_times(consensus_paths(FULL, SETTING, "DPSGD", made, 0.0, range(seeds)), SETTING)
    assert np.isfinite(times).all()
    at = np.sort(times)
    still = 1 - np.arange(1, seeds + 1) / seeds
    assert np.abs(still - staying(FULL, SETTING, kick, at)).max() < 0.15
    median = median_time(FULL, SETTING, kick)
    assert np.median(times) == pytest.approx(median, rel=0.1)
    assert median < 0.6 * median_time(FULL, SETTING, 0.0)


def test_one_hessian_for_all_samples_makes_no_difference() -> None:
    """DPSGD's consensus goes SSGD's way, noise included (identity: mean_j g_j is linear in w_j)."""
    saddle = replace(FULL, c=0.0, kappa=0.0, tau=0.05)
    setting = replace(SETTING, local_batch=2)
    ways = [
        np.stack(list(islice(consensus_paths(saddle, setting, rule, pairs(8), 0.0, range(3)), 80)))
        for rule in ("SSGD", "DPSGD")
    ]
    np.testing.assert_allclose(ways[0], ways[1], rtol=1e-10, atol=1e-14)
    assert np.abs(ways[0][-1, :, 1]).min() > 1e-3  # noise, and growth


def test_noise_of_the_weights_pushes_ssgd_off_too() -> None:
    """SSGD* without noise is SSGD, with some it leaves sooner."""
    times = [
        leaving_times(consensus_paths(FULL, SETTING, rule, pairs(8), std, range(20)), SETTING)
        for rule, std in (("SSGD", 0.0), ("SSGD*", 0.0), ("SSGD*", 0.1))
    ]
    np.testing.assert_array_equal(times[0], times[1])
    assert (times[2] < times[0]).mean() > 0.9


def test_who_has_not_left_is_counted() -> None:
    """inf after the last update."""
    setting = replace(SETTING, updates=5)
    paths = consensus_paths(FULL, setting, "SSGD", pairs(8), 0.0, range(3))
    np.testing.assert_array_equal(leaving_times(paths, setting), np.inf)


WORDS = ["reproduce", "saddle", "--seeds", 3, "--batches", 4, 2, "--learners", 4, "--samples", 16]


def test_the_study_writes_table_times_and_picture(
    command: Launch, hpcddl: Launch, tmp_path: Path
) -> None:
    """On one rank and on two the same; a study too short for anyone to leave is drawn as well."""
    done = command(*WORDS, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 seeds leave at the same update" in done.stdout
    both = hpcddl(*WORDS, "--out", tmp_path / "two", ranks=2)
    assert both.returncode == 0, both.stderr
    for name in ("table.csv", "times.csv", "results.json"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two
    with open(tmp_path / "one" / "times.csv") as file:
        times = [float(r["updates"]) for r in csv.DictReader(file) if r["algorithm"] == "DPSGD"]
    with open(tmp_path / "one" / "table.csv") as file:
        table = [row for row in csv.DictReader(file) if row["algorithm"] == "DPSGD"]
    assert float(table[0]["median"]) == np.median(times[:3])
    assert float(table[0]["greatest"]) == max(times[:3])
    said = json.loads((tmp_path / "one" / "results.json").read_text())
    assert [case["algorithm"] for case in said["cases"]] == ["SSGD", "SSGD*", "DPSGD"] * 2 + [
        "SSGD",
        "DPSGD",
    ]
    short = command(*WORDS, "--updates", 2, "--out", tmp_path / "short")
    assert short.returncode == 0, short.stderr
    assert "here:  no: medians of more than 2" in short.stdout
    assert (tmp_path / "short" / "saddle.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one" / "saddle.pdf").read_bytes().startswith(b"%PDF")


def test_bad_input_is_one_line(command: Launch, tmp_path: Path) -> None:
    for words, say in (
        (["--samples", 10], "--samples 10: must be a multiple of 4"),
        (["--batches", 5], "--batches 5: must be at most 4, for 4 learners and 16 samples"),
        (["--batches", 0], "--batches: 0: must be a whole number, at least 1"),
        (["--rate", 1], "--rate: 1: must be above 0 and below 1"),
        (["--left", "nan"], "--left: nan: must be above 0"),
        (["--start", 0.6], "--start 0.6: must be below --left"),
        (["--learners", 3], "--learners: 3: must be a whole number, at least 4"),
    ):
        done = command(*WORDS, *words, "--out", tmp_path / "o")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert say in done.stderr
