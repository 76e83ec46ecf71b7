"""TokenWindows: all learners together read the stream, each row of each learner without a gap."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcddl.common.errors import UserError
from hpcddl.common.options import options_of
from hpcddl.data import DATASETS
from hpcddl.data.manifest import FieldEntry
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.data.shards import open_split
from hpcddl.data.text import open_text
from tests.synthetic import write_shards

WORDS = 50


@pytest.fixture
def write(tmp_path):
    """A text of `tokens` random tokens in shards of `per_shard`; returns it and its folder."""

    def run(tokens: int = 400, per_shard: int = 37, heldout: int = 40) -> tuple[Path, np.ndarray]:
        stream = np.random.default_rng(0).integers(0, WORDS, tokens, dtype=np.int32)
        sizes = {"train": tokens, "heldout": heldout}
        fields = {"tokens": FieldEntry(shape=(), dtype="int32")}
        with ShardSetWriter(
            tmp_path,
            "text",
            fields,
            classes=WORDS,
            samples=sizes,
            samples_per_shard=per_shard,
        ) as writer:
            writer.append("train", tokens=stream)
            writer.append("heldout", tokens=np.arange(heldout, dtype=np.int32) % WORDS)
            writer.finish(provenance={}, counts={})
        return tmp_path, stream

    return run


@pytest.mark.parametrize("bptt", [1, 7, 30])
@pytest.mark.parametrize("per_shard", [1, 5, 37, 400])
def test_a_window_is_a_slice_of_the_stream(write, bptt, per_shard):
    """In the order asked for, repeated ones too, over however many shards."""
    folder, stream = write(per_shard=per_shard)
    split = open_text(folder, "train", bptt)
    assert len(split) == 399 // bptt
    indices = np.random.default_rng(1).integers(0, len(split), 20)
    indices[:2] = len(split) - 1, 0
    features, labels = split.batch(indices)
    assert features.dtype == labels.dtype == torch.int64
    assert features.shape == labels.shape == (20, bptt)
    for row, index in enumerate(indices):
        begin = index * bptt
        assert np.array_equal(features[row], stream[begin : begin + bptt])
        assert np.array_equal(labels[row], stream[begin + 1 : begin + bptt + 1])


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_all_learners_together_read_the_stream(write, ranks, batch):
    """The rows put behind one another, step after step, are the stream but for its last part."""
    folder, stream = write()
    split = open_text(folder, "train", 7)
    rows: list[np.ndarray] = []
    for rank in range(ranks):
        batches = [split.batch(i) for i in split.order(3, 1, rank=rank, ranks=ranks, batch=batch)]
        features = np.concatenate([features for features, _ in batches], axis=1)
        labels = np.concatenate([labels for _, labels in batches], axis=1)
        # Within a row nothing is missing between two steps: a hidden state may be carried over.
        assert np.array_equal(features[:, 1:], labels[:, :-1])
        rows += list(features)
    steps = len(split) // (ranks * batch)
    read = np.concatenate(rows)
    assert len(read) == steps * ranks * batch * 7
    assert np.array_equal(read, stream[: len(read)])


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("streams", [1, 3, 4, 60])
def test_evaluation_reads_every_stream_in_order(write, streams, ranks):
    """Row b of a step follows row b of the step before; all ranks together read the same streams,
    every window once."""
    split = open_text(write()[0], "train", 7, streams)
    parts = []
    for rank in range(ranks):
        steps = list(split.in_order(rank=rank, ranks=ranks, batch=2))
        for before, after in pairwise(steps):
            assert np.array_equal(after, before[: len(after)] + 1)
        parts.append(steps)
    windows = np.concatenate([step for steps in parts for step in steps])
    assert sorted(windows) == list(range(len(split)))
    starts = np.concatenate([steps[0] for steps in parts if steps])
    assert len(starts) == min(streams, len(split))
    assert sorted(starts) == sorted(next(split.in_order(rank=0, ranks=1, batch=2)))


@pytest.mark.parametrize("first", [0, 1, 4, 9])
def test_resuming_gives_the_rest(write, first):
    split = open_text(write()[0], "train", 7)
    words = {"rank": 1, "ranks": 2, "batch": 3}
    whole = list(split.order(0, 0, **words))
    rest = list(split.order(0, 0, **words, first_step=first))
    assert np.array_equal(rest, whole[first:])


def test_every_epoch_and_seed_reads_alike(write):
    split = open_text(write()[0], "train", 7)
    one, other = (
        list(split.order(seed, epoch, rank=0, ranks=1, batch=4)) for seed, epoch in ((0, 0), (5, 9))
    )
    assert np.array_equal(one, other)


def test_too_few_tokens_are_refused(write):
    folder, _ = write(tokens=400, heldout=30)
    with pytest.raises(UserError, match=r"'heldout' holds 30 tokens, a window of bptt=30 takes 31"):
        open_text(folder, "heldout", 30)
    assert len(open_text(folder, "heldout", 29)) == 1
    split = open_text(folder, "train", 7)
    with pytest.raises(UserError, match=r"global_batch=58: 2 learners take 29 .* holds 57"):
        next(split.order(0, 0, rank=0, ranks=2, batch=29))


@pytest.mark.parametrize("bad", [-1, 57])
def test_indices_outside_are_refused(write, bad):
    split = open_text(write()[0], "train", 7)
    with pytest.raises(IndexError, match=r"0 \.\. 56"):
        split.batch(np.array([0, bad]))
    assert split.batch(np.array([], np.int64))[0].shape == (0, 7)


def test_attributes(write):
    folder, stream = write()
    for name in ("train", "heldout"):
        split = open_text(folder, name, 7)
        assert (split.shape, split.classes) == ((7,), WORDS)
        assert np.array_equal(split.class_counts, np.bincount(stream, minlength=WORDS))


def test_an_altered_file_is_refused(write):
    """As for every shard set: cut, or one byte changed."""
    folder, _ = write()
    path = folder / "train-00003.h5"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="cut or replaced"):
        open_text(folder, "train", 7)
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00003\.h5: .*altered"):
        open_text(folder, "train", 7)
    open_text(folder, "heldout", 7)


def test_text_and_other_sets_are_told_apart(write, tmp_path):
    folder, _ = write()
    with pytest.raises(UserError, match="holds text; must be features with labels"):
        open_split(folder, "train")
    frames = write_shards(tmp_path / "frames")
    with pytest.raises(UserError, match="holds frames; must be text"):
        open_text(frames, "train", 7)


def test_the_entry_in_the_table(write):
    """Paper B's 30 tokens are the default; none is refused before anything is opened."""
    folder, _ = write()
    train, heldout = DATASETS["text"](path=str(folder))
    assert (train.bptt, heldout.bptt, train.tokens, heldout.tokens) == (30, 30, 400, 40)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        options_of(DATASETS["text"]).model_validate({"path": "x", "bptt": 0})


def test_the_prefetch_thread_gathers_text(write):
    folder, stream = write()
    split = open_text(folder, "train", 7)
    order = split.order(0, 0, rank=0, ranks=1, batch=2)
    first = [features[0].clone() for features, _ in Prefetcher(split, "cpu").batches(order)]
    assert np.array_equal(np.concatenate(first), stream[: 28 * 7])
