"""`prep wikitext`: the stream of words comes back from tokens and vocabulary."""

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep import wikitext
from hpcddl.data.manifest import read_manifest
from tests.data_prep.sample_sets import assert_refused, files, names, stored

TRAIN = " = Title = \n\n the cat <unk> sat on the mat . \n café the\xa0cat\r\n"
VALID = "the dog sat \n\nno newline at the end"
TEST = "cat\n"
SPLITS = {"train": TRAIN, "heldout": VALID, "test": TEST}


def write(folder: Path, *file_names: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in zip(file_names, SPLITS.values(), strict=False):
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    return write(tmp_path / "in", "wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens")


def words_of(text: str) -> list[str]:
    """As the field counts them: the end of every line is a word."""
    return [word for line in text.splitlines() for word in [*line.split(), "<eos>"]]


def read_back(folder: Path, split: str) -> list[str]:
    vocabulary = names(folder)
    return [vocabulary[token] for token in stored(folder, split)["tokens"]]


def test_words_come_back(command, data, tmp_path, monkeypatch):
    """Words that the training text lacks as <unk>; split into blocks and shards anyhow."""
    monkeypatch.setattr(wikitext, "_BLOCK", 3)
    out = tmp_path / "o"
    words = "prep", "wikitext", "--data", data, "--out", out, "--samples-per-shard", 7
    assert not command(*words).returncode
    known = set(words_of(TRAIN))
    for split, text in SPLITS.items():
        want = [word if word in known else "<unk>" for word in words_of(text)]
        assert read_back(out, split) == want
    manifest = read_manifest(out)
    assert manifest.kind == "text"
    counts = Counter(words_of(TRAIN))
    assert manifest.class_counts == [counts[word] for word in names(out)]


def test_the_vocabulary_is_in_order_of_first_appearance(command, data, tmp_path):
    out = tmp_path / "o"
    assert not command("prep", "wikitext", "--data", data, "--out", out).returncode
    assert names(out) == list(dict.fromkeys(words_of(TRAIN)))


def test_unk_is_last_where_the_training_text_has_none(command, tmp_path):
    (tmp_path / "a").write_text("x y\n")
    (tmp_path / "b").write_text("y z\n")
    files = "--train", tmp_path / "a", "--heldout", tmp_path / "b"
    assert not command("prep", "wikitext", *files, "--out", tmp_path / "o").returncode
    assert names(tmp_path / "o") == ["x", "y", "<eos>", "<unk>"]
    assert stored(tmp_path / "o", "heldout")["tokens"].tolist() == [1, 3, 2]
    assert read_manifest(tmp_path / "o").class_counts == [1, 1, 1, 0]
    assert set(read_manifest(tmp_path / "o").splits) == {"train", "heldout"}


def test_every_way_to_name_the_files_gives_the_same_tokens(command, data, tmp_path):
    text = write(tmp_path / "text", "train.txt", "valid.txt", "test.txt")
    archive = tmp_path / "wikitext-2-v1.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in data.iterdir():
            file.write(path, f"wikitext-2/{path.name}")
    given = [
        *("--train", text / "train.txt", "--heldout", text / "valid.txt"),
        *("--test", text / "test.txt"),
    ]
    for name, words in enumerate(
        [["--data", data], ["--data", text], ["--data", archive], given, given]
    ):
        out = tmp_path / f"out{name}"
        assert not command("prep", "wikitext", *words, "--out", out).returncode
    made = [files(tmp_path / f"out{name}") for name in range(5)]
    assert made[3] == made[4]
    for one in made:
        del one["manifest.json"]
        assert one == made[0]


def test_what_is_wrong_is_refused(command, data, tmp_path):
    def refused(*words: object, say: str) -> None:
        before = set(tmp_path.iterdir())
        result = command("prep", "wikitext", *words, "--out", tmp_path / "o")
        assert_refused(result, tmp_path / "o", say, before=before)

    train = data / "wiki.train.tokens"
    refused("--train", train, say="--train: needs --heldout FILE")
    refused("--data", data, "--heldout", train, say="allowed only with --train FILE")
    refused("--train", train, "--heldout", data / "none", say="none: cannot be read")
    refused("--train", "/dev/null", "--heldout", train, say="the train split is empty")
    refused("--data", tmp_path, say="holds no wiki.train.tokens or train.txt")
    (data / "wiki.valid.tokens").write_bytes(b"fine\nthe \xff cat\n")
    refused("--data", data, say="wiki.valid.tokens: line 2 is not UTF-8 at byte 4")
    (data / "wiki.valid.tokens").unlink()
    refused("--data", data, say="holds no wiki.valid.tokens or valid.txt")
    train.rename(data / "wiki.train.raw")
    refused("--data", data, say="raw, character-level version")


def test_real_text_against_a_plain_count(command, real_data, tmp_path):
    """WikiText-2's valid and test texts have 217,646 and 245,569 words, ends of lines included."""
    folder = real_data / "wikitext-2"
    if not folder.is_dir():
        pytest.skip(f"no real text: {folder} is not a folder")
    out = tmp_path / "o"
    given = "--train", folder / "valid.txt", "--heldout", folder / "test.txt"
    assert not command("prep", "wikitext", *given, "--out", out).returncode
    texts = {}
    for split, name in (("train", "valid.txt"), ("heldout", "test.txt")):
        with open(folder / name, encoding="utf-8") as file:
            texts[split] = [word for line in file for word in [*line.split(), "<eos>"]]
    manifest = read_manifest(out)
    assert manifest.splits["train"].samples == len(texts["train"]) == 217_646
    assert manifest.splits["heldout"].samples == len(texts["heldout"]) == 245_569
    counts = Counter(texts["train"])
    assert manifest.class_counts == [counts[word] for word in names(out)]
    assert read_back(out, "train") == texts["train"]
    want = [word if word in counts else "<unk>" for word in texts["heldout"]]
    assert read_back(out, "heldout") == want


def test_the_stand_in_can_be_learned(command, tmp_path):
    """Nine words in ten follow from the one before."""
    assert not command("prep", "wikitext", "--synthetic", 5000, "--out", tmp_path / "o").returncode
    tokens = stored(tmp_path / "o", "train")["tokens"]
    assert 0.85 < np.mean((tokens[1:] - tokens[:-1]) % 33_278 == 1) < 0.95
