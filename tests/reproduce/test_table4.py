"""Which runs converged, where only one algorithm does, and the mini corpus end to end."""

import csv
import json
import math
from itertools import product
from pathlib import Path

import pytest

from hpcddl.common.study import StudyFolder
from hpcddl.reproduce.table4_mini_plot import draw
from hpcddl.reproduce.table4_mini_report import Corpus, Outcome, statements, table
from tests.conftest import Launch

LOSSES = {  # (algorithm, batch, rate) -> loss of seeds 0, 1, 2; guessing: ln 8 = 2.079
    ("SSGD", 64, 0.1): (1.0, 1.2, 1.1),
    ("SSGD", 64, 0.2): (0.9, 5.0, math.inf),
    ("SSGD", 128, 0.1): (1.5, 1.4, 9.0),
    ("SSGD", 128, 0.2): (2.05, math.inf, math.inf),
    ("DPSGD", 64, 0.1): (1.05, 1.05, 1.05),
    ("DPSGD", 64, 0.2): (0.8, 0.7, 3.0),
    ("DPSGD", 128, 0.1): (2.07, 2.07, 2.07),
    ("DPSGD", 128, 0.2): (2.2, 2.2, 2.2),
}


def trial(algorithm: str, batch: int, rate: float, seed: int, loss: float) -> Outcome:
    return Outcome(
        algorithm=algorithm,
        batch=batch,
        rate=rate,
        peak_rate=rate * batch / 32,
        seed=seed,
        learners=4,
        classes=8,
        prior_loss=2.5,
        loss=loss,
        accuracy=0.5,
    )


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(
        "toy", [trial(*key, seed, x) for key, xs in LOSSES.items() for seed, x in enumerate(xs)]
    )


def test_the_table_shows_medians_of_what_converged_and_how_many_did(corpus: Corpus) -> None:
    """Converged: better than 98 % of ln 8 and of the class prior's loss, that is below 2.038."""
    assert table(corpus).splitlines() == [
        "toy: held-out loss (nats) after the last epoch; 4 learners, 3 seeds, medians of those "
        "that converged",
        "batch  algorithm          rate 0.1          rate 0.2",
        "64     SSGD                  1.100       0.900 (1/3)",
        "64     DPSGD                 1.050       0.750 (2/3)",
        "128    SSGD            1.450 (2/3)          diverged",
        "128    DPSGD      not above chance  not above chance",
        "rates are those of batch 32 and grow with the batch; guessing: 2.500 by class frequency, "
        "ln 8 = 2.079",
    ]


def test_where_only_one_algorithm_converges(corpus: Corpus) -> None:
    """By most seeds."""
    assert statements(corpus) == [
        "DPSGD converges, SSGD does not: batch 64 at 0.2",
        "SSGD converges, DPSGD does not: batch 128 at 0.1",
        "best at batch 64: SSGD 1.100 at 0.1, DPSGD 0.750 at 0.2",
        "best at batch 128: SSGD 1.450 at 0.1, DPSGD converges at no rate",
    ]


def test_a_picture_is_drawn_also_where_all_diverge(corpus: Corpus, tmp_path: Path) -> None:
    lost = Corpus("lost", [trial("SSGD", 64, 0.1, 0, math.inf)])
    draw([corpus, lost], StudyFolder(tmp_path))
    assert (tmp_path / "table4-mini.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_the_mini_corpus_end_to_end(hpcddl: Launch, tmp_path: Path) -> None:
    """Every combination trained on two ranks; a second call trains nothing, and says the same."""
    small = "epochs=1", "schedule.warmup_epochs=0", "schedule.decay_epochs=1", "model.layers=1"
    words = ["reproduce", "table4-mini", "--out", tmp_path, *small]
    words += ["model.cells=2", "model.bottleneck=2"]
    done = hpcddl(*words, ranks=2, timeout=280)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    keys = {(r["algorithm"], int(r["batch"]), float(r["rate"])) for r in rows}
    assert keys == set(product(("SSGD", "DPSGD"), (256, 512, 1024), (0.28, 0.4, 0.57, 0.8, 1.13)))
    assert len(rows) == len(keys)
    assert {r["learners"] for r in rows} == {"2"}
    for row in rows:
        name = f"{row['algorithm']}_global_batch={row['batch']}_rate={row['rate']}_seed=0"
        summary = json.loads((tmp_path / "mini.table4" / name / "summary.json").read_text())
        assert float(row["loss"]) == summary["heldout_loss"]
    again = hpcddl(*words, ranks=2)
    assert again.stdout.count("has finished") == len(rows)
    assert again.stdout.partition("mini.table4: ")[2] == done.stdout.partition("mini.table4: ")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds: 0: must be a whole number, at least 1"),
        (["--digits", "nowhere"], "--digits nowhere: no shard set; see `hpcddl prep kaldi`"),
        (["epochs=0"], "epochs"),
    ],
)
def test_bad_options_cost_one_line(
    words: list[str], message: str, hpcddl: Launch, tmp_path: Path
) -> None:
    done = hpcddl("reproduce", "table4-mini", *words, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("hpcddl: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
