"""`hpcddl data`: every kind is described and drawn, every bad file is listed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hpcddl.data.manifest import FieldEntry, Manifest, window_fields
from hpcddl.data.shard_writer import ShardSetWriter, write_lines
from hpcddl.data.split_files import open_files
from hpcddl.inspect.info import describe
from hpcddl.inspect.samples import spread, stored

FIELDS = {
    "frames": window_fields(5, 7, "float16"),
    "images": {
        "features": FieldEntry(shape=(3, 8, 8), dtype="uint8"),
        "labels": FieldEntry(shape=(), dtype="int32"),
    },
    "vectors": {
        "features": FieldEntry(shape=(6,), dtype="float32"),
        "labels": FieldEntry(shape=(), dtype="int32"),
    },
    "text": {"tokens": FieldEntry(shape=(), dtype="int32")},
}
SAMPLES = {"train": 50, "heldout": 9}
CLASSES = 40  # too many for bars with names; 4 are never seen


def arrays(kind: str, split: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(len(split))
    made = {}
    for name, field in FIELDS[kind].items():
        shape = (SAMPLES[split], *field.shape)
        high = {"utterance": 3, "start": 90, "features": 255}.get(name, CLASSES - 4)
        made[name] = random.integers(0, high, shape).astype(field.dtype)
    return made


def write(folder: Path, kind: str, named: bool = True, source: str = "u{} speaker{}") -> Manifest:
    folder.mkdir()
    writer = ShardSetWriter(
        folder, kind, FIELDS[kind], classes=CLASSES, samples=SAMPLES, samples_per_shard=20
    )
    for split in SAMPLES:
        writer.append(split, **arrays(kind, split))
    sources = {
        split: write_lines(
            folder / f"{split}.utt2spk", [source.format(i, i // 2) for i in range(3)]
        )
        for split in SAMPLES
    }
    # A dollar sign must not start a formula in a picture.
    names = write_lines(folder / "names.txt", [f"$c_{i}$" for i in range(CLASSES)])
    return writer.finish(
        provenance={"tool": "test", "files": {"a": "b"}},
        counts={"frames": {"train": 1234567}, "skipped": []},
        sources=sources if kind == "frames" else None,
        names=names if named else None,
    )


@pytest.fixture(params=list(FIELDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_info_counts_what_is_there(tmp_path, kind, command):
    """JSON and text agree with the manifest and the arrays that went in."""
    manifest = write(tmp_path / "set", kind)
    facts = json.loads(command("data", "info", tmp_path / "set", "--json").stdout)
    assert facts == describe(tmp_path / "set")
    assert facts["kind"] == kind
    assert (facts["classes"], facts["splits"]["train"]["samples"]) == (CLASSES, 50)
    assert facts["splits"]["train"]["shards"] == 3
    assert facts["splits"]["train"]["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / "set").glob("train-*.h5")
    )
    labels = arrays(kind, "train")["tokens" if kind == "text" else "labels"]
    values, counts = np.unique(labels, return_counts=True)
    assert facts["classes_seen"] == len(values) <= CLASSES - 4
    assert facts["labels"] == labels.size
    shares = counts / counts.sum()
    assert facts["entropy_nats"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert facts["most_frequent"][0]["count"] == counts.max()
    assert facts["least_frequent"][-1]["count"] == counts.min()
    assert facts["most_frequent"][0]["class"].startswith("$c_")
    assert facts["fields"].keys() == manifest.fields.keys()
    if kind == "frames":
        assert facts["splits"]["train"]["utterances"] == 3
        assert facts["splits"]["train"]["speakers"] == 2
    text = command("data", "info", tmp_path / "set").stdout
    assert f"{kind}\n" in text
    assert "1,234,567" in text
    assert "50 samples in 3 shards" in text


def test_verify_passes_and_lists_every_bad_file(tmp_path, command):
    folder = tmp_path / "set"
    write(folder, "frames")
    done = command("data", "verify", folder)
    assert done.returncode == 0, done.stderr
    assert "7 files" in done.stdout
    assert "GB/s" in done.stdout
    content = bytearray((folder / "train-00001.h5").read_bytes())
    content[500] ^= 1
    (folder / "train-00001.h5").write_bytes(content)
    (folder / "train-00000.h5").unlink()
    os.truncate(folder / "train.utt2spk", 1)
    done = command("data", "verify", folder)
    assert done.returncode == 2
    bad = [line for line in done.stdout.splitlines() if line.startswith("bad: ")]
    assert [Path(line.split(": ")[1]).name for line in bad] == [
        "train.utt2spk",
        "train-00000.h5",
        "train-00001.h5",
    ]
    assert done.stderr == f"hpcddl: error: {folder}: 3 of 7 files are bad\n"


def test_every_kind_is_drawn(tmp_path, kind, command, monkeypatch):
    """Each split, the first and the last sample, without a warning; a picture of its own name."""
    write(tmp_path / "set", kind, named=kind != "vectors")
    monkeypatch.chdir(tmp_path)
    done = command("data", "show", "set")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "picture: set.png\n"
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")
    done = command("data", "show", "set", "--split", "heldout", "--sample", 8, "--out", "a.svg")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "a.svg").read_text()
    assert "<!-- heldout" in content
    if kind == "frames":
        number = int(arrays(kind, "heldout")["utterance"][8])
        start = int(arrays(kind, "heldout")["start"][8])
        assert (
            f"heldout sample 8: utterance u{number} of speaker speaker{number // 2}, "
            f"frames {start} .. {start + 4}" in content
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sample", 9, "--split", "heldout"], "--sample: 9: must be 0 .. 8 in heldout"),
        (["--sample", -1], "--sample: -1: must be 0 .. 49"),
        (["--split", "test"], "no split 'test'; it has ['heldout', 'train']"),
        (["--out", "a.txt"], "--out a.txt: must end in one of"),
        (["--out", "none/a.png"], "--out none/a.png: No such file"),
    ],
)
def test_bad_options_are_named(tmp_path, command, words, message):
    write(tmp_path / "set", "vectors")
    done = command("data", "show", tmp_path / "set", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_lost_names_are_one_line(tmp_path, command):
    write(tmp_path / "set", "frames")
    (tmp_path / "set" / "names.txt").write_text("one\n")
    for words in (["info"], ["show", "--out", tmp_path / "a.png"]):
        done = command("data", words[0], tmp_path / "set", *words[1:])
        assert done.returncode == 2
        assert "names.txt: 1 lines, expected 40: cut or replaced" in done.stderr


def test_stored_samples_are_the_packed_ones(tmp_path, kind):
    """In the order asked for, across shards, in the stored type."""
    write(tmp_path / "set", kind)
    field = "tokens" if kind == "text" else "features"
    indices = np.array([49, 0, 19, 20, 20])
    got = stored(open_files(tmp_path / "set", "train", field), field, indices)
    assert got.dtype == FIELDS[kind][field].type
    assert np.array_equal(got, arrays(kind, "train")[field][indices])


def test_spread_samples_are_different_and_everywhere():
    assert spread(7, 5, 10).tolist() == [7, 9, 1, 3, 5]
    assert sorted(spread(3, 40, 9)) == list(range(9))
