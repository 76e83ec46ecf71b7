"""The manifest of a shard set: what was packed, from what, and the checksums of its files."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole

MANIFEST = "manifest.json"
STRUCTURE = "structure"
"""Name of the checksum over a shard's bytes outside its datasets: HDF5's header and the padding."""

Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Kind = Literal["frames", "images", "vectors", "text"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldEntry(_Frozen):
    """One dataset of every shard: (N, *shape) of a little-endian `dtype`."""

    shape: tuple[PositiveInt, ...]
    dtype: Literal["float16", "float32", "uint8", "int32"]

    @property
    def type(self) -> np.dtype:
        """The NumPy type as it is stored."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def sample_bytes(self) -> int:
        """Size of one sample in bytes."""
        return prod(self.shape) * self.type.itemsize


class ShardEntry(_Frozen):
    """One HDF5 file: where its datasets begin, a checksum for each and one for the rest.

    Checksums are XXH3 of 128 bits, in hexadecimal.
    """

    file: str = Field(pattern=r"^[a-z0-9]+-\d{5,}\.h5$")
    samples: PositiveInt
    bytes: PositiveInt
    offsets: dict[str, PositiveInt]
    checksums: dict[str, Checksum]


class TextEntry(_Frozen):
    """A text file beside the shards, one name per line."""

    file: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    lines: NonNegativeInt
    bytes: NonNegativeInt
    checksum: Checksum


class SplitEntry(_Frozen):
    """One split; `sources` names what its samples were cut from (for speech: utt2spk's lines)."""

    samples: NonNegativeInt
    shards: list[ShardEntry]
    sources: TextEntry | None = None

    @property
    def bytes(self) -> int:
        """Size of the split's shards in bytes."""
        return sum(shard.bytes for shard in self.shards)


class Manifest(_Frozen):
    """What a shard set holds.

    `class_counts` counts the labels of the training split (of text: its tokens). `names` are the
    classes' names, where they have any; `skipped` lists what was not packed, and why.
    """

    format: Literal["hpcddl-shards"] = "hpcddl-shards"
    version: Literal[2] = 2
    kind: Kind
    fields: dict[str, FieldEntry]
    classes: PositiveInt
    class_counts: list[NonNegativeInt]
    names: TextEntry | None = None
    skipped: TextEntry | None = None
    splits: dict[str, SplitEntry]
    provenance: dict[str, Any]
    counts: dict[str, Any]

    @property
    def sample_bytes(self) -> int:
        """Size of one sample, all fields together, in bytes."""
        return sum(field.sample_bytes for field in self.fields.values())

    @property
    def fingerprint(self) -> str:
        """What tells sets apart: the XXH3 of all samples' checksums, 32 hexadecimal digits.

        Where the samples came from, and the names of their classes, make no difference.
        """
        shards = {
            name: [
                [shard.samples, {field: shard.checksums[field] for field in sorted(self.fields)}]
                for shard in split.shards
            ]
            for name, split in self.splits.items()
        }
        fields = {name: field.model_dump(mode="json") for name, field in self.fields.items()}
        told = [self.kind, self.classes, self.class_counts, fields, shards]
        return xxhash.xxh3_128_hexdigest(json.dumps(told, sort_keys=True).encode())

    @property
    def texts(self) -> list[TextEntry]:
        """All text files beside the shards."""
        sources = [split.sources for split in self.splits.values()]
        return [text for text in (self.names, self.skipped, *sources) if text is not None]


def window_fields(frames: int, features: int, dtype: str) -> dict[str, FieldEntry]:
    """The fields of speech: windows of T frames, and where each was cut from."""
    return {
        "features": FieldEntry.model_validate({"shape": (frames, features), "dtype": dtype}),
        "labels": FieldEntry(shape=(frames,), dtype="int32"),
        "utterance": FieldEntry(shape=(), dtype="int32"),
        "start": FieldEntry(shape=(), dtype="int32"),
    }


def labelled(shape: tuple[int, ...], dtype: str) -> dict[str, FieldEntry]:
    """The fields of images and vectors: features of `shape`, and one class each."""
    return {
        "features": FieldEntry.model_validate({"shape": shape, "dtype": dtype}),
        "labels": FieldEntry(shape=(), dtype="int32"),
    }


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """The manifest of the shard set in `directory`.

    Raises UserError where there is none, or it is of another version, or contradicts itself.
    """
    path = Path(directory) / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the manifest ({error.strerror}); "
            "the folder is no shard set, or its packing did not finish"
        ) from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    for name, split in manifest.splits.items():
        held = sum(shard.samples for shard in split.shards)
        if held != split.samples:
            raise UserError(
                f"{path}: splits.{name}.samples is {split.samples}, but its shards hold {held}"
            )
        for shard in split.shards:
            _check_fields(path, shard, manifest.fields)
    if len(manifest.class_counts) != manifest.classes:
        raise UserError(
            f"{path}: class_counts has {len(manifest.class_counts)} entries, "
            f"expected classes = {manifest.classes}"
        )
    return manifest


def _check_fields(path: Path, shard: ShardEntry, fields: dict[str, FieldEntry]) -> None:
    if shard.offsets.keys() != fields.keys() or shard.checksums.keys() != {*fields, STRUCTURE}:
        raise UserError(f"{path}: {shard.file}: expected offsets and checksums of {list(fields)}")
    for name, field in fields.items():
        offset, end = shard.offsets[name], shard.offsets[name] + shard.samples * field.sample_bytes
        # NumPy would copy a whole unaligned map at every access.
        if offset % field.type.itemsize or end > shard.bytes:
            raise UserError(
                f"{path}: {shard.file}: {name} lies at bytes {offset} .. {end}, "
                f"expected multiples of {field.type.itemsize} below {shard.bytes}"
            )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest last and in one piece: without it the folder is not a shard set."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    write_whole(directory / MANIFEST, text.encode())
