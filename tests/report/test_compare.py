"""The comparison table and picture, made from run directories alone."""

from pathlib import Path

import pytest

from hpcddl.common.errors import UserError
from hpcddl.report.compare import draw, legend, table
from hpcddl.report.target import parse_target, target_table
from hpcddl.run.records import read_run, training_seconds
from tests.report.written import write_run


def test_the_table_says_what_the_summaries_say(tmp_path: Path) -> None:
    good = read_run(write_run(tmp_path / "good", [3.0, 2.5]))
    bad = read_run(write_run(tmp_path / "bad", [4.0, None]))
    head, first, second, foot = table([good, bad]).splitlines()
    assert head.split()[:3] == ["run", "strategy", "learners"]
    assert first.split()[1:] == [
        "dpsgd",
        "ring",
        "4",
        "512",
        "2.5000",
        "2.5000",
        "25.00",
        "done",
        "9.0",
        "3.0",
    ]
    assert second.split()[1:] == [
        "dpsgd",
        "ring",
        "4",
        "512",
        "-",
        "4.0000",
        "25.00",
        "diverged",
        "in",
        "epoch",
        "2",
        "9.0",
        "3.0",
    ]
    assert "loss 4.5000, accuracy 5.00 % of 96 classes" in foot


def test_training_time_leaves_out_what_is_not_training(tmp_path: Path) -> None:
    """Evaluation and checkpoints cost every algorithm the same; they are not its time."""
    assert training_seconds(read_run(write_run(tmp_path / "r", [3.0])).summary) == 9.0


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_draws_a_picture_even_of_a_diverged_run(suffix: str, tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "good", [3.0, 2.5])),
        read_run(write_run(tmp_path / "bad", [4.0, None])),
    ]
    path = tmp_path / f"picture.{suffix}"
    draw(runs, path)
    begin = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(begin)


def test_refuses_what_is_not_a_finished_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [3.0])
    with pytest.raises(UserError, match="must end in one of"):
        draw([read_run(run)], tmp_path / "picture.doc")
    (run / "summary.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        read_run(run)
    with pytest.raises(UserError, match="not a run directory"):
        read_run(tmp_path)


def test_runs_of_one_strategy_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    good = read_run(write_run(tmp_path / "good", [3.0, 2.5]))
    bad = read_run(write_run(tmp_path / "bad", [4.0, None]))
    assert legend([good]) == ["dpsgd ring"]
    poor = read_run(write_run(tmp_path / "poor", [4.6], not_above_chance=True))
    assert legend([good, bad, poor]) == [
        "dpsgd ring: good",
        "dpsgd ring: bad (diverged)",
        "dpsgd ring: poor (not above chance)",
    ]
    assert "  not above chance  " in table([poor])


def test_what_it_took_to_reach_a_target(tmp_path: Path) -> None:
    """The first evaluation at the target counts; the speed-up is over the single learner."""
    slow = read_run(write_run(tmp_path / "slow", [4.0, 3.0, 2.5], learners=1))
    fast = read_run(write_run(tmp_path / "fast", [2.9, 2.4]))
    never = read_run(write_run(tmp_path / "never", [4.0, None]))
    head, _, *rows = target_table([fast, slow, never], parse_target("loss=3")).splitlines()
    assert head == f"to a held-out loss <= 3; x: speed-up over {tmp_path / 'slow'}"
    assert [row.split()[1:] for row in rows] == [
        ["4", "1", "5120", "10", "5", "1.0", "9.0", "2.00"],
        ["1", "2", "10240", "20", "10", "2.0", "18.0", "1.00"],
        ["4", *["-"] * 7],
    ]
    accuracy = target_table([fast, never], parse_target("accuracy=0.2")).splitlines()
    assert [row.split()[2] for row in accuracy[2:]] == ["2", "2"]


@pytest.mark.parametrize("text", ["loss", "loss=low", "perplexity=3", ""])
def test_a_target_is_a_loss_or_an_accuracy(text: str) -> None:
    with pytest.raises(UserError, match="must be loss=X or accuracy=Y"):
        parse_target(text)
