"""`hpcddl prep wikitext`: WikiText-2 and its like, word level, as one stream of words per split.

Words are separated by white space; `<eos>` follows the last word of every line, empty lines
included. The vocabulary is that of the training split, in order of first appearance.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_prep.archive import Archive, open_file
from data_prep.arguments import add_common
from data_prep.sample_set import Block, SampleSet, pack
from data_prep.synthetic import split_sizes
from hpcddl.common.errors import UserError
from hpcddl.common.files import sha256
from hpcddl.data.manifest import FieldEntry

EOS, UNK = "<eos>", "<unk>"
_BLOCK = 1 << 18  # tokens
_FILES = {
    "train": ("wiki.train.tokens", "train.txt"),
    "heldout": ("wiki.valid.tokens", "valid.txt"),
    "test": ("wiki.test.tokens", "test.txt"),
}
_FIELDS = {"tokens": FieldEntry(shape=(), dtype="int32")}
_WORDS = 33_278  # of WikiText-2


@dataclass(frozen=True)
class _Text:
    """One split's file: `path`, or `name` in the folder or archive `path`."""

    path: Path
    name: str | None = None

    def __str__(self) -> str:
        return str(self.path / self.name if self.name else self.path)

    @property
    def file(self) -> Path:
        """The file on disk: the text, or the archive it is in."""
        return self.path / self.name if self.name and self.path.is_dir() else self.path

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        if self.name is None:
            with open_file(self.path) as file:
                yield file
        else:
            with Archive(self.path) as archive, archive.open(self.name) as file:
                yield file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep wikitext`."""
    parser.description = (
        "Pack word-level text as one stream of tokens per split: train, heldout (the valid file) "
        f"and test. {EOS} ends every line; words that the training text lacks become {UNK}."
    )
    parser.epilog = "example: hpcddl prep wikitext --data wikitext-2-v1.zip --out shards/wikitext2"
    source = add_common(parser, unit="tokens", samples_per_shard=1 << 24)
    source.add_argument(
        "--data", type=Path, help="folder or archive with wiki.train.tokens (or train.txt), ..."
    )
    source.add_argument(
        "--train", type=Path, help="instead of --data: the training text; needs --heldout"
    )
    parser.add_argument("--heldout", type=Path, help="the held-out text; only with --train")
    parser.add_argument("--test", type=Path, help="a third text (split test); only with --train")


def run(arguments: argparse.Namespace) -> int:
    """Packs the text, or with --synthetic a generated one."""
    read = _read if arguments.synthetic is None else _synthetic
    if arguments.train is None and (arguments.heldout or arguments.test):
        raise UserError("--heldout, --test: allowed only with --train FILE")
    if arguments.train is not None and arguments.heldout is None:
        raise UserError("--train: needs --heldout FILE beside it")
    return pack(arguments, "hpcddl prep wikitext", read)


def _read(arguments: argparse.Namespace) -> SampleSet:
    texts = _texts(arguments)
    vocabulary: dict[str, int] = {}
    samples = dict.fromkeys(texts, 0)
    for split, text in texts.items():
        for words in _lines(text):
            samples[split] += len(words)
            if split == "train":
                for word in words:
                    vocabulary.setdefault(word, len(vocabulary))
    vocabulary.setdefault(UNK, len(vocabulary))
    return SampleSet(
        kind="text",
        fields=_FIELDS,
        names=list(vocabulary),
        samples=samples,
        blocks=_blocks(texts, vocabulary),
        provenance={
            "texts": {split: str(text) for split, text in texts.items()},
            "files": {str(text.file): sha256(text.file) for text in texts.values()},
        },
    )


def _texts(arguments: argparse.Namespace) -> dict[str, _Text]:
    if arguments.data is None:
        given = {"train": arguments.train, "heldout": arguments.heldout, "test": arguments.test}
        return {split: _Text(path) for split, path in given.items() if path}
    with Archive(arguments.data) as archive:
        if "wiki.train.raw" in archive:
            raise UserError(
                f"{archive.path}: the raw, character-level version; "
                "must be the word-level one with wiki.train.tokens"
            )
        return {
            split: _Text(arguments.data, archive.first(names)) for split, names in _FILES.items()
        }


def _lines(text: _Text) -> Iterator[list[str]]:
    """The words of each line, with the end of the line."""
    with text.open() as file:
        for number, line in enumerate(file, 1):
            try:
                words = line.decode().split()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{text}: line {number} is not UTF-8 at byte {error.start}"
                ) from None
            words.append(EOS)
            yield words


def _blocks(texts: dict[str, _Text], vocabulary: dict[str, int]) -> Iterator[Block]:
    unknown = vocabulary[UNK]
    for split, text in texts.items():
        tokens: list[int] = []
        for words in _lines(text):
            tokens += [vocabulary.get(word, unknown) for word in words]
            if len(tokens) >= _BLOCK:
                yield split, {"tokens": np.array(tokens, np.int32)}
                tokens = []
        yield split, {"tokens": np.array(tokens, np.int32)}


def _synthetic(arguments: argparse.Namespace) -> SampleSet:
    samples = split_sizes(arguments.synthetic, "heldout", "test")
    return SampleSet(
        kind="text",
        fields=_FIELDS,
        names=[EOS, UNK, *(f"word{number}" for number in range(2, _WORDS))],
        samples=samples,
        blocks=_chains(samples, arguments.seed),
        provenance={"synthetic": True, "seed": arguments.seed},
    )


def _chains(samples: dict[str, int], seed: int) -> Iterator[Block]:
    """Generates words that mostly follow each other by number, from starts drawn by Zipf's law."""
    for number, (split, count) in enumerate(samples.items()):
        random = np.random.default_rng([seed, number])
        for begin in range(0, count, _BLOCK):
            size = min(_BLOCK, count - begin)
            starts = random.random(size) < 0.1
            starts[0] = True
            at = np.flatnonzero(starts)
            first = (_WORDS ** random.random(len(at))).astype(np.int64)
            run = np.cumsum(starts) - 1
            tokens = (first[run] + np.arange(size) - at[run]) % _WORDS
            yield split, {"tokens": tokens.astype(np.int32)}
