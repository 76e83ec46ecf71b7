"""Small shard sets that are learnable: each class is a point, each frame a noisy copy of it."""

import re
from pathlib import Path

import numpy as np

from hpcddl.common.files import checksum
from hpcddl.data.manifest import FieldEntry, read_manifest, window_fields, write_manifest
from hpcddl.data.shard_file import check_shard
from hpcddl.data.shard_writer import ShardSetWriter

FRAMES, FEATURES, CLASSES = 5, 6, 10


def write_shards(
    folder: Path, train: int = 240, heldout: int = 45, noise: float = 0.5, seed: int = 0
) -> Path:
    """A shard set of `train` and `heldout` windows in `folder`, in shards of 100 windows."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    folder.mkdir(parents=True)
    writer = ShardSetWriter(
        folder,
        "frames",
        window_fields(FRAMES, FEATURES, "float32"),
        classes=CLASSES,
        samples={"train": train, "heldout": heldout},
        samples_per_shard=100,
    )
    for split, count in (("train", train), ("heldout", heldout)):
        labels = random.integers(0, CLASSES, (count, FRAMES)).astype(np.int32)
        shape = (count, FRAMES, FEATURES)
        features = centres[labels] + noise * random.normal(size=shape).astype(np.float32)
        index = np.zeros(count, np.int32)
        features = features.astype(np.float32)
        writer.append(split, features=features, labels=labels, utterance=index, start=index)
    writer.finish(provenance={}, counts={})
    return folder


def spoil(folder: Path, split: str, sample: int, value: float, field: str = "features") -> Path:
    """Makes `value` the first number of a sample, as if it had been packed so; the set's folder."""
    manifest = read_manifest(folder)
    for entry in manifest.splits[split].shards:
        if sample < entry.samples:
            break
        sample -= entry.samples
    path = folder / entry.file
    region = check_shard(path, entry, manifest.fields)[field]
    array = np.memmap(path, region.dtype, "r+", region.offset, region.shape)
    array.reshape(len(array), -1)[sample, 0] = value
    array.flush()
    entry.checksums[field] = checksum(path, region.offset, region.size)
    write_manifest(folder, manifest)
    return folder


def write_recipe(path: Path, shards: Path, strategy: str, more: str = "") -> Path:
    """A recipe of a tiny bi-LSTM that trains on `shards` in about a second."""
    path.write_text(
        last_of_each(f"""\
seed: 5
epochs: 3
global_batch: 24
model: {{name: bilstm, layers: 1, cells: 8, bottleneck: 8}}
data: {{name: shards, path: {shards}}}
optimizer: {{name: sgd, momentum: 0.9, nesterov: true, weight_decay: 1.0e-4}}
schedule: {{name: constant, rate: 0.5}}
strategy: {strategy}
{more}
""")
    )
    return path


def last_of_each(recipe: str) -> str:
    """Drops all but the last of every key, as a recipe may give it only once."""
    blocks = re.split(r"^(?=\S)", recipe, flags=re.MULTILINE)
    return "".join({block.partition(":")[0]: block for block in blocks}.values())


WORDS = 20


def write_text(folder: Path, train: int = 485, heldout: int = 122) -> Path:
    """A text of WORDS words in `folder`: three in four follow the word before, the rest are 0."""
    random = np.random.default_rng(3)
    folder.mkdir(parents=True)
    with ShardSetWriter(
        folder,
        "text",
        {"tokens": FieldEntry(shape=(), dtype="int32")},
        classes=WORDS,
        samples={"train": train, "heldout": heldout},
        samples_per_shard=200,
    ) as writer:
        for split, count in (("train", train), ("heldout", heldout)):
            places = np.arange(count, dtype=np.int32)
            starts = np.maximum.accumulate(np.where(random.random(count) < 0.25, places, 0))
            writer.append(split, tokens=(places - starts) % WORDS)
        writer.finish(provenance={}, counts={})
    return folder
