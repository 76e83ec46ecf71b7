"""The manifest of a shard set: what was packed, from what, and the checksums of its files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from hpcddl.errors import UserError
from hpcddl.files import write_whole

MANIFEST = "manifest.json"
_HEX = r"^[0-9a-f]{64}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Frozen):
    """One HDF5 file; `header_bytes` lie before its first dataset and have their own checksum."""

    file: str = Field(pattern=r"^[a-z0-9]+-\d{5,}\.h5$")
    windows: PositiveInt
    bytes: PositiveInt
    sha256: str = Field(pattern=_HEX)
    header_bytes: PositiveInt
    header_sha256: str = Field(pattern=_HEX)


class SplitEntry(_Frozen):
    """One split; utterance `u` belongs to speaker `speakers[utterance_speaker[u]]`."""

    windows: NonNegativeInt
    shards: list[ShardEntry]
    utterances: list[str]
    speakers: list[str]
    utterance_speaker: list[NonNegativeInt]

    @property
    def bytes(self) -> int:
        """Size of the split's shards in bytes."""
        return sum(shard.bytes for shard in self.shards)


class Manifest(_Frozen):
    """What a shard set holds; `class_counts` counts the labelled frames of the training split."""

    format: Literal["hpcddl-shards"] = "hpcddl-shards"
    version: Literal[1] = 1
    frames: PositiveInt
    features: PositiveInt
    classes: PositiveInt
    dtype: Literal["float16", "float32"]
    class_counts: list[NonNegativeInt]
    splits: dict[str, SplitEntry]
    provenance: dict[str, Any]
    counts: dict[str, Any]


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
        held = sum(shard.windows for shard in split.shards)
        if held != split.windows:
            raise UserError(
                f"{path}: splits.{name}.windows is {split.windows}, but its shards hold {held}"
            )
    if len(manifest.class_counts) != manifest.classes:
        raise UserError(
            f"{path}: class_counts has {len(manifest.class_counts)} entries, "
            f"expected classes = {manifest.classes}"
        )
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest last and in one piece: without it the folder is not a shard set."""
    text = json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n"
    write_whole(directory / MANIFEST, text.encode())
