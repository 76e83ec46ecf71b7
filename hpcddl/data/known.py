"""Describes the data sets that recipes name, for use where the data itself is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.data.manifest import (
    MANIFEST,
    FieldEntry,
    Kind,
    labelled,
    read_manifest,
    window_fields,
)


@dataclass(frozen=True)
class Contents:
    """Names a shard set's kind, the fields of its samples and the number of its classes C."""

    kind: Kind
    fields: Mapping[str, FieldEntry]
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample's features; () of a text's tokens."""
        return self.fields["tokens" if self.kind == "text" else "features"].shape


def _frames(frames: int, features: int, classes: int) -> Contents:
    return Contents("frames", window_fields(frames, features, "float16"), classes)


def _images(channels: int, size: int, classes: int) -> Contents:
    return Contents("images", labelled((channels, size, size), "uint8"), classes)


def _vectors(features: int, classes: int) -> Contents:
    return Contents("vectors", labelled((features,), "float32"), classes)


def _text(words: int) -> Contents:
    return Contents("text", {"tokens": FieldEntry(shape=(), dtype="int32")}, words)


# By the end of the path that recipes have them at.
KNOWN: dict[str, Contents] = {
    "cifar10": _images(3, 32, 10),
    "cifar100": _images(3, 32, 100),
    "demo/shards": _frames(21, 39, 300),  # of `make demo`
    "digits": _images(1, 8, 10),
    "imagenet": _images(3, 224, 1000),
    "kaldi_digits": _frames(21, 39, 96),
    "mnist": _images(1, 28, 10),
    "swb2000": _frames(21, 260, 32_000),
    "swb300": _frames(21, 260, 32_000),
    "w8a": _vectors(300, 2),
    "wikitext2": _text(33_278),
    "wikitext2_small": _text(13_777),  # the words of WikiText-2's valid file
}


def contents(path: str) -> Contents:
    """Reads what the set at `path` holds; where there is none, what the known set of its name does.

    Raises:
        UserError: neither; a damaged manifest.
    """
    if (Path(path) / MANIFEST).exists():
        manifest = read_manifest(path)
        return Contents(manifest.kind, manifest.fields, manifest.classes)
    for end, known in KNOWN.items():
        if Path(path).match(end):
            return known
    raise UserError(
        f"data.path={path}: no shard set, and not the name of a known one: {', '.join(KNOWN)}"
    )
