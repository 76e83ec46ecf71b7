"""The study end to end on a tiny set, and what it refuses."""

import csv
import json
from math import inf
from pathlib import Path

import pytest

from hpcddl.reproduce.b_fig6_report import Terms, TimeStudy, rows, statements
from hpcddl.reproduce.target import Combination
from hpcddl.tune.rate_search import RateTrial
from tests.conftest import Launch

PANEL_A = ["--at-learners", 2, "--batches", 4, 8, "--steps", 1, 4]
PANEL_B = ["--at-batch", 4, "--learners", 2, 4]
COMBINATIONS = 1 + 4 + 2  # one learner, panel (a), what panel (b) adds


@pytest.fixture
def shards(command: Launch, tmp_path: Path) -> Path:
    out = tmp_path / "shards"
    words = ["prep", "libsvm", "--synthetic", 300, "--features", 20, "--out", out]
    assert command(*words).returncode == 0
    return out


def test_the_study_writes_table_numbers_and_picture(
    command: Launch, hpcddl: Launch, shards: Path, tmp_path: Path
) -> None:
    """On one rank and on two: the same combinations are shared out, the results are the same."""
    words = ["reproduce", "b-fig6", "--data", shards, *PANEL_A, *PANEL_B, "--seeds", 1]
    words += ["--target", 0.05]
    done = command(*words, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "not in this study" in done.stdout
    with open(tmp_path / "one" / "table.csv") as file:
        table = list(csv.DictReader(file))
    assert [(r["panel"], r["K"], r["B_loc"], r["H"]) for r in table] == [
        ("a", "2", "4", "1"),
        ("a", "2", "4", "4"),
        ("a", "2", "8", "1"),
        ("a", "2", "8", "4"),
        ("b", "1", "4", "1"),
        ("b", "2", "4", "1"),
        ("b", "2", "4", "4"),
        ("b", "4", "4", "1"),
        ("b", "4", "4", "4"),
    ]
    for row in table:
        rounds = float(row["iterations"]) / int(row["H"]) if row["K"] != "1" else 0
        assert float(row["rounds"]) == rounds
        assert float(row["time"]) == float(row["gradients per learner"]) + 25 * rounds
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    assert len(results["combinations"]) == COMBINATIONS
    assert all(len(c["trials"]) >= 5 for c in results["combinations"])
    assert (tmp_path / "one" / "b-fig6.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one" / "b-fig6.pdf").read_bytes().startswith(b"%PDF")
    both = hpcddl(*words, "--out", tmp_path / "two", ranks=2)
    assert both.returncode == 0, both.stderr
    for name in ("table.csv", "results.json"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two


def test_bad_input_is_one_line(command: Launch, shards: Path, tmp_path: Path) -> None:
    def refused(*words: object, say: str) -> None:
        done = command("reproduce", "b-fig6", "--out", tmp_path / "o", "--data", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert say in done.stderr

    refused(tmp_path / "none", say="none")
    refused(shards, "--target", 0, say="--target: 0: must be at least 1e-06")
    refused(shards, "--target", "nan", say="--target: nan: must be at least")
    refused(shards, "--steps", 4, 0, say="--steps: 0: must be a whole number, at least 1")
    refused(shards, "--learners", 1, say="--learners: 1: must be a whole number, at least 2")
    refused(shards, "--highest-rate", 1, say="--highest-rate: 1: must be at least 4")
    refused(shards, say="16 learners with a local batch of 64: must be at most the 300 samples")
    file = tmp_path / "file"
    file.write_text("")
    small = ["--learners", 2, "--batches", 4, "--at-learners", 2, "--out", file / "below"]
    refused(shards, *small, say="below: cannot be written")


def study(times: dict[tuple[int, int, int], float]) -> TimeStudy:
    """Of one data order in which a combination took so many iterations."""
    trials = {Combination(*c): [RateTrial(8.0, (n,), inf)] for c, n in times.items()}
    terms = Terms(
        target=0.005,
        round_cost=25.0,
        limit=1e6,
        highest_rate=1024.0,
        seeds=1,
        lowest=0.1,
        samples=1000,
        l2=1e-3,
    )
    return TimeStudy(trials, at_learners=16, at_batch=16, terms=terms)


@pytest.mark.parametrize(
    ("slower", "verdicts"),
    [(1, ["no", "no"]), (2, ["yes", "no"]), (4, ["yes", "yes"]), (inf, ["yes", "yes"])],
)
def test_statements_on_panel_a_follow_the_numbers(slower: float, verdicts: list[str]) -> None:
    """(16, 16) at 281 a round of 16; (B, 1) at B + 25 an iteration."""
    cost = 16 * 16 + 25
    found = study(
        {
            (1, 16, 1): 1000,
            (16, 16, 16): 16,
            (16, 64, 1): slower * cost / 89 * 1.01,
            (16, 256, 1): slower * cost / 281 * 1.01,
        }
    )
    said = [s.split("here:  ")[1].split(":")[0] for s in statements(found)[:2]]
    assert said == verdicts


@pytest.mark.parametrize(
    ("few", "many", "verdicts"),
    [(100, 400, ["yes", "yes"]), (400, 100, ["no", "no"]), (100, 50, ["yes", "no"])],
)
def test_statements_on_panel_b_follow_the_numbers(
    few: float, many: float, verdicts: list[str]
) -> None:
    """Where H = 16 needs `few` iterations at K = 2 and `many` at K = 64, H = 4 always 120."""
    found = study(
        {
            (1, 16, 1): 1000,
            (2, 16, 4): 120,
            (2, 16, 16): few,
            (64, 16, 4): 120,
            (64, 16, 16): many,
        }
    )
    said = [s.split("here:  ")[1].split(":")[0].split()[0] for s in statements(found)[2:]]
    assert said == verdicts


def test_a_target_not_reached_leaves_a_row_without_numbers() -> None:
    found = study({(1, 16, 1): 1000, (16, 16, 1): 100, (16, 16, 16): inf})
    (line,) = [row for row in rows(found) if row[:4] == ["a", 16, 16, 16]]
    assert set(line[4:]) == {None}
    assert "does not reach" not in "".join(statements(found))  # (64, 1) is not in this study
