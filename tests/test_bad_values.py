"""Values that are no numbers, and labels that are no classes, are the data's fault and said so."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcddl.common.errors import UserError
from hpcddl.data.manifest import FieldEntry, labelled
from hpcddl.data.sampler import epoch_permutation
from hpcddl.data.shard_writer import ShardSetWriter
from tests.conftest import Launch
from tests.synthetic import CLASSES, spoil, write_recipe, write_shards, write_text

NAN, INF = math.nan, math.inf
TEXT_RECIPE = """\
model: {name: lstm_lm, cells: 8, layers: 1, dropout: 0.0}
global_batch: 4
"""


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


# Packing


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float32", NAN, "feature[1] is nan; must be finite"),
        ("float32", -INF, "feature[1] is -inf; must be finite"),
        ("float16", NAN, "feature[1] is nan; must be finite"),
        ("float16", 7e4, "feature[1] is inf; must be finite: beyond float16, which ends at 65504"),
    ],
)
def test_a_feature_that_is_no_number_is_not_packed(
    dtype: str, value: float, expected: str, tmp_path: Path
) -> None:
    """The line counts from the shard's beginning, whatever blocks the samples come in."""
    features, labels = np.zeros((7, 2), np.float32), np.zeros(7, np.int32)
    features[6, 1] = value
    with ShardSetWriter(
        tmp_path,
        "vectors",
        labelled((2,), dtype),
        classes=3,
        samples={"train": 9},
        samples_per_shard=4,
    ) as writer:
        writer.append("train", features=features[:5], labels=labels[:5])
        with pytest.raises(UserError) as caught:
            writer.append("train", features=features[5:], labels=labels[5:])
    place = "train-00001.h5: split train, sample 2 of this shard"
    assert str(caught.value) == f"{place}: {expected}"
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.h5"]


@pytest.mark.parametrize("value", [-100, -1, 3])
def test_a_word_that_is_none_is_not_packed(value: int, tmp_path: Path) -> None:
    fields = {"tokens": FieldEntry(shape=(), dtype="int32")}
    tokens = np.array([0, value, 2], np.int32)
    with ShardSetWriter(
        tmp_path, "text", fields, classes=3, samples={"train": 3}, samples_per_shard=4
    ) as writer:
        expected = f"sample 1 of this shard: token is {value}; must be 0 .. 2"
        with pytest.raises(UserError, match=expected):
            writer.append("train", tokens=tokens)


# hpcddl data verify


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("features", NAN, "feature[0, 0] is nan; must be finite"),
        ("features", INF, "feature[0, 0] is inf; must be finite"),
        ("labels", -100, "label[0] is -100; must be 0 .. 9"),
        ("labels", CLASSES, "label[0] is 10; must be 0 .. 9"),
    ],
)
def test_verify_names_every_shard_with_bad_values(
    field: str, value: float, expected: str, shards: Path, command: Launch
) -> None:
    for split, sample in (("train", 130), ("train", 107), ("heldout", 44)):
        spoil(shards, split, sample, value, field)
    done = command("data", "verify", shards)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        f"bad: {shards}/heldout-00000.h5: split heldout, sample 44 of this shard: {expected}",
        f"bad: {shards}/train-00001.h5: split train, sample 7 of this shard: {expected} "
        "(in 2 of 100 samples)",
    ]
    assert done.stderr == f"hpcddl: error: {shards}: 2 of 4 files are bad\n"


def test_verify_looks_at_every_word(tmp_path: Path, command: Launch) -> None:
    folder = spoil(write_text(tmp_path / "text"), "train", 484, 20, "tokens")
    done = command("data", "verify", folder)
    assert done.returncode == 2
    assert "train-00002.h5: split train, sample 84 of this shard: token is 20" in done.stdout


# Training


@pytest.mark.parametrize("words", [(), ("autocast=float16",)])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_feature_that_is_no_number_ends_training(
    value: float, words: tuple[str, ...], shards: Path, tmp_path: Path, command: Launch
) -> None:
    """An LSTM takes an infinite feature for a large one: only its gradient is not finite.

    A loss scale would skip its step in every epoch.
    """
    spoil(shards, "train", 155, value)
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    done = command("train", recipe, *words, "checkpoint.every_steps=1", "--out", run)
    assert done.returncode == 2
    place = f"{shards}/train-00001.h5: split train, sample 55 of this shard"
    assert f"hpcddl: error: {place}: feature[0, 0] is {value}; must be finite" in done.stderr
    assert not (run / "summary.json").exists()
    step = int(np.flatnonzero(epoch_permutation(240, seed=5, epoch=0) == 155)[0]) // 24
    assert checkpoints(run)[-1] == f"step-{step:08d}"  # the last that had not seen the sample


@pytest.mark.parametrize(
    ("split", "sample", "value"), [("train", 239, -100), ("train", 0, 10), ("heldout", 44, -100)]
)
def test_a_label_that_is_no_class_ends_training(
    split: str, sample: int, value: int, shards: Path, tmp_path: Path, command: Launch
) -> None:
    """Also -100, which torch's cross-entropy leaves out in silence."""
    spoil(shards, split, sample, value, "labels")
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    done = command("train", recipe, "--out", tmp_path / "run")
    assert done.returncode == 2
    expected = f"sample {sample % 100} of this shard: label[0] is {value}; must be 0 .. 9"
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_word_that_is_none_ends_training(split: str, tmp_path: Path, command: Launch) -> None:
    folder = spoil(write_text(tmp_path / "text"), split, 50, 20, "tokens")
    recipe = write_recipe(tmp_path / "r.yaml", folder, "ssgd", TEXT_RECIPE)
    data = f"data={{name: text, path: {folder}, bptt: 5}}"
    done = command("train", recipe, data, "--out", tmp_path / "run")
    assert done.returncode == 2
    place = f"{folder}/{split}-00000.h5: split {split}, sample 50 of this shard"
    assert f"{place}: token is 20; must be 0 .. 19" in done.stderr


def test_evaluations_look_at_held_out_samples(
    shards: Path, tmp_path: Path, command: Launch
) -> None:
    """That of a run, and `hpcddl evaluate` on other data."""
    good = write_recipe(tmp_path / "good.yaml", shards, "ssgd")
    done = command("train", good, "epochs=1", "--out", tmp_path / "good")
    assert done.returncode == 0, done.stderr
    other = spoil(write_shards(tmp_path / "other"), "heldout", 44, NAN)
    expected = f"{other}/heldout-00000.h5: split heldout, sample 44 of this shard: feature[0, 0]"
    done = command("evaluate", tmp_path / "good", "--data", other, "--other-data")
    assert done.returncode == 2
    assert expected in done.stderr
    bad = write_recipe(tmp_path / "bad.yaml", other, "ssgd")
    done = command("train", bad, "--out", tmp_path / "bad")
    assert done.returncode == 2
    assert expected in done.stderr
    assert checkpoints(tmp_path / "bad") == []


@pytest.mark.parametrize(
    ("strategy", "value", "more"),
    [
        ("ssgd", NAN, ""),
        ("{name: dpsgd, topology: ring, delayed: true}", NAN, ""),
        ("ssgd", INF, "optimizer: sign_sgd\n"),
        ("majority_vote", INF, "optimizer: sign_sgd\n"),
        ("{name: local_sgd, steps: 2, compression: sign}", INF, ""),
    ],
)
def test_one_rank_s_data_ends_all(
    strategy: str, value: float, more: str, shards: Path, tmp_path: Path, hpcddl: Launch
) -> None:
    """Of three ranks a single one has the sample; all end, once, with its line.

    Signs do not hide it.
    """
    spoil(shards, "train", 155, value)
    recipe = write_recipe(tmp_path / "r.yaml", shards, strategy, more)
    done = hpcddl("train", recipe, "--out", tmp_path / "run", ranks=3, timeout=60)
    assert done.returncode == 2
    place = f"{shards}/train-00001.h5: split train, sample 55 of this shard"
    assert done.stderr.count(f"hpcddl: error: {place}: feature[0, 0] is {value}") == 1
    assert checkpoints(tmp_path / "run") == []


def test_one_rank_s_label_ends_all(shards: Path, tmp_path: Path, hpcddl: Launch) -> None:
    spoil(shards, "train", 155, -100, "labels")
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    done = hpcddl("train", recipe, "--out", tmp_path / "run", ranks=3, timeout=60)
    assert done.returncode == 2
    assert "train-00001.h5: split train, sample 55 of this shard: label[0] is -100" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("curvature", "--samples", "40"),
        ("landscape", "--samples", "40", "--points", "3"),
        ("interpolate", "--samples", "40"),
    ],
)
def test_analyses_look_at_their_samples(
    words: tuple[str, ...], shards: Path, tmp_path: Path, command: Launch
) -> None:
    """Else a diverged network or an empty picture would be seen in bad data."""
    recipe, run = write_recipe(tmp_path / "r.yaml", shards, "ssgd"), tmp_path / "run"
    done = command("train", recipe, "epochs=1", "--out", run)
    assert done.returncode == 0, done.stderr
    for split, samples in (("train", 240), ("heldout", 45)):
        for sample in range(samples):
            spoil(shards, split, sample, NAN)
    name, *options = words
    runs = [run, run] if name == "interpolate" else [run]
    done = command("analyze", name, *runs, *options, "--other-data", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "of this shard: feature[0, 0] is nan; must be finite" in done.stderr


def test_diagnostics_look_at_their_samples(shards: Path, tmp_path: Path, command: Launch) -> None:
    """Here held-out ones, which training itself does not see before the epoch's end."""
    spoil(shards, "heldout", 3, NAN)
    recipe = write_recipe(tmp_path / "r.yaml", shards, "ssgd")
    words = ("diagnostics={every: 1, samples: 0, of: heldout}", "--out", tmp_path / "run")
    done = command("train", recipe, *words)
    assert done.returncode == 2
    assert "split heldout, sample 3 of this shard: feature[0, 0] is nan" in done.stderr
