"""`hpcddl bench shuffle` counts what it says: equal pairs and the distance of distributions."""

import json
from pathlib import Path

import numpy as np
import pytest

from hpcddl.bench.shuffle import _Marks, measure
from hpcddl.data.manifest import FieldEntry, window_fields
from hpcddl.data.shard_writer import ShardSetWriter, write_lines

WINDOWS, PER_UTTERANCE, PER_SPEAKER = 2000, 20, 200


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Utterances of 20 windows, 10 for each speaker, who has a class of his own."""
    index = np.arange(WINDOWS, dtype=np.int32)
    writer = ShardSetWriter(
        tmp_path,
        "frames",
        window_fields(2, 3, "float16"),
        classes=10,
        samples={"train": WINDOWS},
        samples_per_shard=700,
    )
    labels = np.repeat(index // PER_SPEAKER, 2).reshape(-1, 2)
    writer.append(
        "train",
        features=np.zeros((WINDOWS, 2, 3), np.float32),
        labels=labels,
        utterance=index // PER_UTTERANCE,
        start=index,
    )
    lines = [f"u{number} s{number // 10}" for number in range(100)]
    writer.finish(
        provenance={}, counts={}, sources={"train": write_lines(tmp_path / "train.utt2spk", lines)}
    )
    return tmp_path


def test_one_batch_by_hand():
    """Of 4 samples: 6 pairs, one of one utterance, 3 of one speaker; classes 3:1 against 1:1."""
    marks = _Marks(
        {"utterance": np.array([0, 0, 1, 2, 9]), "speaker": np.array([0, 0, 0, 1, 9])},
        [np.array([[0], [0]]), np.array([[0], [1], [1]])],
        np.array([2, 5]),
        np.array([0.5, 0.5]),
    )
    assert marks.of(np.array([3, 0, 2, 1])) == pytest.approx([1 / 6, 3 / 6, 0.25])


def test_exact_is_chance_and_blocks_are_what_the_buffer_makes_them(speech):
    """Chance: 19 of 1999 others are of one's utterance; without a buffer nearly all of a batch."""
    result = measure(
        path=speech,
        batch=20,
        ranks=1,
        block=100,
        buffer=[0, 400, 2000],
        batches=100,
    )
    assert (result["utterances"], result["speakers"], result["batches"]) == (100, 10, 100)
    rows = result["rows"]
    assert rows["exact"]["same_utterance"] == pytest.approx(19 / 1999, rel=0.1)
    assert rows["exact"]["same_speaker"] == pytest.approx(199 / 1999, rel=0.1)
    assert rows["blocks, buffer 0"]["same_utterance"] == 1
    assert rows["blocks, buffer 0"]["class_variation"] == pytest.approx(0.9)
    full = rows["blocks, buffer 2000"]
    assert full == {name: pytest.approx(value, rel=0.2) for name, value in rows["exact"].items()}
    for name in full:
        assert full[name] < rows["blocks, buffer 400"][name] < rows["blocks, buffer 0"][name]


def test_text_and_json_agree(speech, command):
    words = ["bench", "shuffle", speech, "--batch", 8, "--ranks", 3, "--buffer", 0, 64]
    result = json.loads(command(*words, "--json").stdout)
    text = command(*words).stdout
    for row in result["rows"].values():
        for value in row.values():
            assert f"{value:.5f}" in text
    assert list(result["rows"]) == ["exact", "blocks, buffer 0", "blocks, buffer 64"]


def test_sets_without_utterances(tmp_path, command):
    """Images and vectors have classes only; text has no samples to shuffle."""
    for kind, fields in (
        ("vectors", {"features": FieldEntry(shape=(2,), dtype="float32")}),
        ("text", {}),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        name = "labels" if fields else "tokens"
        fields = {**fields, name: FieldEntry(shape=(), dtype="int32")}
        writer = ShardSetWriter(
            folder, kind, fields, classes=2, samples={"train": 50}, samples_per_shard=50
        )
        arrays = {"features": np.zeros((50, 2), np.float32)} if "features" in fields else {}
        writer.append("train", **arrays, **{name: np.arange(50, dtype=np.int32) % 2})
        writer.finish(provenance={}, counts={})
    done = command("bench", "shuffle", tmp_path / "vectors", "--batch", 10)
    assert done.returncode == 0, done.stderr
    assert "class variation" in done.stdout
    assert "same utterance" not in done.stdout
    done = command("bench", "shuffle", tmp_path / "text")
    assert done.returncode == 2
    assert "holds text" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "1"], "--batch: 1: must be a whole number, at least 2"),
        (["--buffer", "5", "-1"], "--buffer: -1: must be a whole number, at least 0"),
        (["--batch", "900", "--ranks", "3"], "global_batch=2700"),
    ],
)
def test_bad_options_are_named(speech, command, words, message):
    done = command("bench", "shuffle", speech, *words)
    assert done.returncode == 2
    assert message in done.stderr
