"""Every data set can be had without a download, and what all `prep` commands have in common."""

import numpy as np
import pytest

from hpcddl.commands.table import COMMANDS
from hpcddl.data import DATASETS
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from hpcddl.data.verify import verify
from tests.data_prep.sample_sets import assert_refused, files, names

# Speech has a generated corpus of its own: prep mini-corpus.
SETS = [name for name in COMMANDS if name.startswith("prep ") and "kaldi" not in name]
SETS.remove("prep mini-corpus")

SHAPES = {
    "prep cifar": ((3, 32, 32), 10),
    "prep mnist": ((1, 28, 28), 10),
    "prep digits": ((1, 8, 8), 10),
    "prep libsvm": ((300,), 2),
    "prep images": ((3, 256, 256), 1000),
    "prep wikitext": ((30,), 33_278),
}


@pytest.mark.parametrize("name", SETS)
def test_a_stand_in_opens_and_gathers(command, tmp_path, name):
    """Right shape and number of classes, checksums that agree, and batches as training reads."""
    out = tmp_path / "o"
    count = 3000 if name == "prep wikitext" else 40
    result = command(*name.split(), "--synthetic", count, "--out", out)
    assert result.returncode == 0, result.stderr
    manifest = verify(out)
    assert manifest.provenance["synthetic"] is True
    assert manifest.provenance["tool"] == f"hpcddl {name}"
    assert manifest.splits["train"].samples == count
    assert manifest.splits["heldout"].samples == count // 5
    assert len(names(out)) == manifest.classes
    train, heldout = DATASETS["text" if manifest.kind == "text" else "shards"](path=str(out))
    shape, classes = SHAPES[name]
    assert (train.shape, train.classes) == (shape, classes)
    for split in (train, heldout):
        features, labels = split.buffers(2)
        indices = next(split.order(0, 0, rank=0, ranks=1, batch=2))
        split.gather(indices, features, labels)
        assert features.shape == (2, *shape)
        assert 0 <= int(labels.min()) <= int(labels.max()) < classes


@pytest.mark.parametrize("name", SETS)
def test_a_stand_in_depends_on_its_seed_alone(command, tmp_path, name):
    for folder, seed, per_shard in (("a", 1, 5), ("b", 1, 5), ("c", 2, 5)):
        words = "--synthetic", 12, "--seed", seed, "--samples-per-shard", per_shard
        assert not command(*name.split(), *words, "--out", tmp_path / folder).returncode
    one = files(tmp_path / "a")
    assert one == files(tmp_path / "b")
    assert len([file for file in one if file.startswith("train-")]) == 3
    assert one["train-00000.h5"] != files(tmp_path / "c")["train-00000.h5"]


@pytest.mark.parametrize("name", ["cifar", "mnist", "digits", "libsvm"])
def test_a_stand_in_can_be_learned(command, tmp_path, name):
    """Held-out samples lie nearest to the mean of their own class in the training split."""
    out = tmp_path / "o"
    assert not command("prep", name, "--synthetic", 600, "--out", out).returncode
    train, heldout = open_split(out, "train"), open_split(out, "heldout")
    (x, y), (test_x, test_y) = (split.batch(np.arange(len(split))) for split in (train, heldout))
    means = np.stack([x[y == c].double().mean(0).ravel() for c in range(train.classes)])
    distances = ((test_x.double().flatten(1).numpy()[:, None] - means) ** 2).sum(-1)
    assert (distances.argmin(1) == test_y.numpy()).mean() > 0.9


def test_options_of_the_stand_ins(command, tmp_path):
    words = "--synthetic", 20, "--out"
    assert not command("prep", "cifar", *words, tmp_path / "a", "--classes", 100).returncode
    assert read_manifest(tmp_path / "a").classes == 100
    smaller = "--classes", 7, "--size", 30
    assert not command("prep", "images", *words, tmp_path / "b", *smaller).returncode
    assert read_manifest(tmp_path / "b").classes == 7
    assert read_manifest(tmp_path / "b").fields["features"].shape == (3, 30, 30)
    assert not command("prep", "libsvm", *words, tmp_path / "c", "--features", 5).returncode
    assert read_manifest(tmp_path / "c").fields["features"].shape == (5,)
    words = "prep", "images", "--data", tmp_path, "--classes", 7, "--out", tmp_path / "d"
    made = set(tmp_path.iterdir())
    assert_refused(command(*words), tmp_path / "d", "only with --synthetic", before=made)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--synthetic", 0], "--synthetic: 0: must be a whole number, 1 .."),
        (["--synthetic", 5, "--samples-per-shard", 0], "--samples-per-shard: 0: must be a whole"),
        (["--synthetic", 5, "--seed", -1], "--seed: -1: must be a whole number, 0 .."),
        (["--synthetic", 2**40], "are free"),
    ],
)
def test_values_out_of_range_are_refused(command, tmp_path, name, words, say):
    result = command(*name.split(), *words, "--out", tmp_path / "o")
    assert_refused(result, tmp_path / "o", say, before=set())


@pytest.mark.parametrize("name", SETS)
def test_a_source_is_needed_and_only_one(command, tmp_path, name):
    if name != "prep digits":
        result = command(*name.split(), "--out", tmp_path / "o")
        assert_refused(result, tmp_path / "o", "one of the arguments", before=set())
        result = command(*name.split(), "--synthetic", 5, "--data", "x", "--out", tmp_path / "o")
        assert_refused(result, tmp_path / "o", "not allowed with", before=set())


def test_an_earlier_set_is_replaced_only_when_asked(command, tmp_path):
    out = tmp_path / "o"
    words = "prep", "digits", "--synthetic", 12, "--out", out
    assert not command(*words).returncode
    first = files(out)
    result = command(*words, "--seed", 1)
    assert_refused(result, out, "exists already", before={out})
    assert files(out) == first
    assert not command(*words, "--seed", 1, "--overwrite").returncode
    assert files(out) != first
    assert set(tmp_path.iterdir()) == {out}
