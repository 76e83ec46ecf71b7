"""`hpcddl prep libsvm`: classification data in LIBSVM's format, as dense vectors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.arguments import add_common, add_heldout_fraction
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.split import heldout_mask
from data_prep.svmlight import Row, read_rows
from data_prep.synthetic import balanced_labels, split_sizes
from hpcddl.common.bounds import between
from hpcddl.common.errors import UserError
from hpcddl.common.files import sha256
from hpcddl.data.manifest import labelled

_BLOCK_BYTES = 1 << 24
_BLOCK_ROWS = 4096
_MAX_CLASSES = 10_000
_W8A_FEATURES = 300


@dataclass
class Survey:
    """What must be known before the first sample is written."""

    largest: int = 0  # index, from 1
    labels: set[float] = field(default_factory=set)
    samples: dict[Path, int] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep libsvm`."""
    parser.description = (
        "Pack LIBSVM files (label index:value ..., indices from 1; plain, .gz or .bz2) as dense "
        "float32 vectors. Classes are the labels in ascending order."
    )
    parser.epilog = "example: hpcddl prep libsvm --data w8a --heldout w8a.t --out shards/w8a"
    source = add_common(parser)
    source.add_argument("--data", type=Path, help="the training file")
    heldout = parser.add_mutually_exclusive_group()
    heldout.add_argument("--heldout", type=Path, help="the file of held-out samples")
    add_heldout_fraction(heldout)
    parser.add_argument(
        "--features",
        type=between(1, 2**31 - 1),
        metavar="D",
        help="length of the vectors; default: the largest index",
    )


def run(arguments: argparse.Namespace) -> int:
    """Packs the set, or with --synthetic a generated one."""
    if arguments.heldout and arguments.data is None:
        raise UserError("--heldout: allowed only with --data FILE")
    read = _read if arguments.synthetic is None else _synthetic
    return pack(arguments, "hpcddl prep libsvm", read)


def _read(arguments: argparse.Namespace) -> SampleSet:
    data, heldout = arguments.data, arguments.heldout
    paths = [data, heldout] if heldout else [data]
    survey = Survey()
    for path in paths:
        _survey(path, survey, arguments.features)
    features = arguments.features or survey.largest
    if not features:
        raise UserError(f"{data}: no sample has a feature; fix: --features D")
    classes = sorted(survey.labels)
    if heldout:
        samples = {"train": survey.samples[data], "heldout": survey.samples[heldout]}
        blocks: Iterator[Block] = (
            (split, arrays)
            for split, path in (("train", data), ("heldout", heldout))
            for arrays in _dense(read_rows(path), features, classes)
        )
    else:
        mask = heldout_mask(survey.samples[data], arguments.heldout_fraction, arguments.seed)
        samples = {"train": int((~mask).sum()), "heldout": int(mask.sum())}
        blocks = _parted(_dense(read_rows(data), features, classes), mask)
    return SampleSet(
        kind="vectors",
        fields=labelled((features,), "float32"),
        names=[_name(label) for label in classes],
        samples=samples,
        blocks=blocks,
        provenance={
            "files": {str(path): sha256(path) for path in paths},
            "heldout_fraction": None if heldout else arguments.heldout_fraction,
            "seed": arguments.seed,
        },
    )


def _survey(path: Path, survey: Survey, features: int | None) -> None:
    count = 0
    for count, row in enumerate(read_rows(path), 1):
        survey.labels.add(row.label)
        if row.indices:
            survey.largest = max(survey.largest, row.indices[-1] + 1)
        if features and survey.largest > features:
            raise UserError(
                f"{path}: sample {count} has index {survey.largest}, --features is {features}"
            )
        if len(survey.labels) > _MAX_CLASSES:
            raise UserError(
                f"{path}: more than {_MAX_CLASSES} labels; must be data for classification"
            )
    survey.samples[path] = count


def _name(label: float) -> str:
    return str(int(label)) if label.is_integer() else repr(label)


def _rows(features: int) -> int:
    """Chooses the rows of a block: few of long vectors, as it is dense; a limit for short ones."""
    return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * features)))


def _dense(
    rows: Iterable[Row], features: int, classes: list[float]
) -> Iterator[dict[str, NDArray]]:
    """Blocks of rows as (n, D) features and (n,) classes."""
    rows = iter(rows)
    number = {label: index for index, label in enumerate(classes)}
    step = _rows(features)
    while block := list(islice(rows, step)):
        dense = np.zeros((len(block), features), np.float32)
        for values, row in zip(dense, block, strict=True):
            values[row.indices] = row.values
        labels = np.array([number[row.label] for row in block], np.int32)
        yield {"features": dense, "labels": labels}


def _parted(blocks: Iterable[dict[str, NDArray]], heldout: NDArray[np.bool_]) -> Iterator[Block]:
    begin = 0
    for arrays in blocks:
        here = heldout[begin : begin + len(arrays["labels"])]
        begin += len(here)
        for split, mask in (("train", ~here), ("heldout", here)):
            yield split, {name: array[mask] for name, array in arrays.items()}


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    """Generates a set like w8a: few ones among zeros, with frequencies that depend on the class."""
    features = arguments.features or _W8A_FEATURES
    sizes = split_sizes(arguments.synthetic)
    return SampleSet(
        kind="vectors",
        fields=labelled((features,), "float32"),
        names=["-1", "1"],
        samples=sizes,
        blocks=_sparse_ones(sizes, features, arguments.seed),
        provenance={"synthetic": True, "seed": arguments.seed},
    )


def _sparse_ones(sizes: dict[str, int], features: int, seed: int) -> Iterator[Block]:
    frequency = 0.1 * np.random.default_rng([seed, 0]).random((2, features), np.float32)
    step = _rows(features)
    for number, (split, count) in enumerate(sizes.items(), 1):
        random = np.random.default_rng([seed, number])
        labels = balanced_labels(count, 2, random)
        for begin in range(0, count, step):
            chosen = labels[begin : begin + step]
            ones = random.random((len(chosen), features), np.float32) < frequency[chosen]
            yield split, {"features": ones.astype(np.float32), "labels": chosen}
