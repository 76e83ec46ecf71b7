"""A panel end to end on five ranks, the search of the noise, and what is refused."""

import csv
import json
import math
from pathlib import Path

import pytest

from hpcddl.reproduce.fig2_report import Panel, PanelStudy, rows
from hpcddl.reproduce.fig2_run import Evaluated, PanelRun, PanelSetting
from hpcddl.reproduce.fig2a import PANEL as FIG2A
from hpcddl.reproduce.fig2b import PANEL as FIG2B
from hpcddl.training.diagnostics import Measurement
from tests.conftest import Launch

SAMPLES = 60


@pytest.fixture
def shards(command: Launch, tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    assert command("prep", "digits", "--synthetic", SAMPLES, "--out", out).returncode == 0
    return out


def test_a_panel_writes_table_numbers_and_picture(
    hpcddl: Launch, shards: Path, tmp_path: Path
) -> None:
    """nB = N: SSGD's alpha_e is alpha, its Delta 0; DPSGD's weights part after the first update."""
    out = tmp_path / "out"
    words = ["reproduce", "fig2a", "--data", shards, "--out", out, "--seeds", 2, "--updates", 6]
    done = hpcddl(*words, "--batch", SAMPLES, "--every", 2, "--noise", 0.5, ranks=5)
    assert done.returncode == 0, done.stderr
    with open(out / "table.csv") as file:
        table = list(csv.DictReader(file))
    assert [(r["algorithm"], r["noise std"], r["seeds"]) for r in table] == [
        ("SSGD", "", "2"),
        ("DPSGD", "", "2"),
        ("SSGD*", "0.5", "2"),
    ]
    results = json.loads((out / "results.json").read_text())
    assert len(results["statements"]) == done.stdout.count("\nhere:  ")
    assert len(results["runs"]) == 6
    for run in results["runs"]:
        assert [m["step"] for m in run["measurements"]] == [0, 2, 4]
        assert [e["step"] for e in run["test_errors"]] == [1, 2, 3, 4, 5, 6]
        first, *others = run["measurements"]
        exact = run["algorithm"] == "SSGD"
        for measured in others:
            assert (measured["effective_rate"] == pytest.approx(1, abs=1e-3)) == exact
            assert (measured["noise"] < 1e-6) == exact
        assert (first["noise"] < 1e-6) == (run["algorithm"] != "SSGD*")
    for seed in (0, 1):
        starts = {r["measurements"][0]["loss"] for r in results["runs"] if r["seed"] == seed}
        assert len(starts) == 1
    assert (out / "fig2a.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "fig2a.pdf").read_bytes().startswith(b"%PDF")


def test_bad_input_is_one_line(command: Launch) -> None:
    def refused(*words: object, say: str) -> None:
        done = command("reproduce", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert say in done.stderr

    refused("fig2a", say="fig2a: 1 ranks, must be 5 (mpirun -np 5 hpcddl reproduce fig2a")
    refused("fig2b", say="fig2b: 1 ranks, must be 6 (mpirun -np 6 hpcddl reproduce fig2b")
    refused("fig2a", "--seeds", 0, say="--seeds: 0: must be a whole number, at least 1")
    refused("fig2a", "--noise", -1, say="--noise: -1: must be at least 0")
    refused("fig2a", "--scale", 0, say="--scale: 0: must be above 0")
    refused("fig2a", "--scale", "nan", say="--scale: nan: must be above 0")
    refused("fig2a", "--batch", 12, say="--batch 12: must be a multiple of the 5 learners")


def measurement(step: int, loss: float, effective_rate: float, noise: float) -> Measurement:
    """What the table and its statements read."""
    return Measurement(step, loss, effective_rate, noise, 0.0, None, None, 0.0, 1.0, 1.0, 1.0, 1.0)


def study(panel: Panel, **outcomes: list[tuple[float, float, float]]) -> PanelStudy:
    """Of runs that ended with (loss, error) and had so much of alpha throughout."""
    setting = PanelSetting(rate=panel.rate, global_batch=60, epochs=10, every=1, scale=1.0)
    runs = {
        {"star": "SSGD*", "ssgd": "SSGD", "dpsgd": "DPSGD"}[name]: [
            PanelRun(
                seed,
                0.1 if name == "star" else 0.0,
                loss,
                error,
                [measurement(t, loss, ratio * panel.rate, 1 - ratio) for t in range(10)],
                [Evaluated(10, error)],
            )
            for seed, (loss, error, ratio) in enumerate(ends)
        ]
        for name, ends in outcomes.items()
    }
    return PanelStudy(panel, setting, "digits", 60, 10, runs, {}, 1)


def verdicts(found: PanelStudy) -> list[str]:
    return [s.split("here:  ")[1].split(":")[0] for s in found.panel.statements(found)]


GOOD, BAD = (0.01, 0.02, 0.5), (2.3, 0.9, 1.0)


@pytest.mark.parametrize(
    ("ssgd", "dpsgd", "expected"),
    [
        ([BAD] * 3, [GOOD] * 3, ["yes", "yes", "yes", "no", "yes", "yes"]),
        ([GOOD] * 3, [BAD] * 3, ["no", "no", "no", "yes", "no", "yes"]),
        ([BAD, BAD, GOOD], [GOOD, BAD, BAD], ["yes", "no", "no", "yes", "no", "yes"]),
    ],
)
def test_statements_of_fig2a_follow_the_numbers(
    ssgd: list[tuple[float, float, float]],
    dpsgd: list[tuple[float, float, float]],
    expected: list[str],
) -> None:
    """SSGD* converges to an error of 5 % with half of alpha throughout."""
    assert verdicts(study(FIG2A, ssgd=ssgd, dpsgd=dpsgd, star=[(0.2, 0.05, 0.5)] * 3)) == expected


@pytest.mark.parametrize(
    ("dpsgd", "star", "expected"),
    [
        ((0.01, 0.023, 0.8), 0.039, ["yes", "yes", "yes", "yes", "yes"]),
        ((0.02, 0.027, 1.0), 0.026, ["yes", "no", "no", "no", "no"]),
        ((2.3, 0.9, 0.8), 0.039, ["no", "no", "yes", "no", "no"]),
    ],
)
def test_statements_of_fig2b_follow_the_numbers(
    dpsgd: tuple[float, float, float], star: float, expected: list[str]
) -> None:
    """SSGD ends at a loss of 0.01 and an error of 2.6 %, without noise."""
    found = study(FIG2B, ssgd=[(0.01, 0.026, 1.0)], dpsgd=[dpsgd], star=[(0.01, star, 0.7)])
    assert verdicts(found) == expected


def test_a_seed_that_diverged_is_a_row_without_its_numbers() -> None:
    """It has not converged, and as the median it is no number; the least loss is the others'."""
    lost = (math.nan, 0.9, math.nan)
    found = study(FIG2A, ssgd=[lost, lost, GOOD], dpsgd=[GOOD], star=[GOOD])
    ssgd = rows(found)[0]
    assert ssgd[2:7] == [3, 1, None, 0.01, None]
    assert ssgd[10] is None
