"""An unfinished packing: a folder beside the output to which several jobs write shards.

Every file in it under its own name is complete: the plan, shards, and a record for each shard. A
killed job leaves at most a hidden partial file; started again it writes only what is missing. The
last step renames the folder to the output.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole
from hpcddl.common.folders import check_replaceable, put_in_place
from hpcddl.common.leftovers import remove_leftovers_in
from hpcddl.data.manifest import MANIFEST, FieldEntry, Manifest, ShardEntry, write_manifest
from hpcddl.data.shard_file import check_contents, check_shard
from hpcddl.data.shard_writer import shard_name

SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Part:
    """Shard `number` of a split: its samples `first` .. `first + samples - 1`."""

    split: str
    number: int
    first: int
    samples: int

    @property
    def name(self) -> str:
        """Its file's name."""
        return shard_name(self.split, self.number)


class Record(BaseModel):
    """What a finished shard adds to the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entry: ShardEntry
    class_counts: list[int]


def parts(samples: Mapping[str, int], per_shard: int) -> list[Part]:
    """All shards of a set, in order."""
    return [
        Part(split, number, first, min(per_shard, total - first))
        for split, total in samples.items()
        for number, first in enumerate(range(0, total, per_shard))
    ]


def parts_of_job(everything: list[Part], job: int, jobs: int) -> list[Part]:
    """The parts of one job of `jobs`: nearly equal numbers, consecutive for sequential reads."""
    count = len(everything)
    return everything[count * (job - 1) // jobs : count * job // jobs]


class Packing:
    """The folder `.OUT.packing` of an output that is not there yet."""

    def __init__(self, out: Path, overwrite: bool) -> None:
        """Raises UserError when `out` exists and must not be replaced."""
        self.out = Path(os.path.abspath(out))
        self.folder = self.out.with_name(f".{self.out.name}.packing")
        check_replaceable(self.out, MANIFEST, overwrite)

    def make(self) -> None:
        """Makes the folder, and removes partial files of jobs that have ended."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.out}: cannot make the folder ({error.strerror})") from None
        remove_leftovers_in(self.folder)

    def need_room(self, size: int) -> None:
        """Raises UserError when the file system has fewer than `size` free bytes."""
        place = self.out.parent
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if size > free:
            raise UserError(
                f"{self.out}: the shards take {size / 1e9:.1f} GB, "
                f"{place} has {free / 1e9:.1f} GB free"
            )

    def record(self, part: Part, fields: Mapping[str, FieldEntry]) -> Record | None:
        """Reads and cheaply checks the record of a finished shard; None: it must be written."""
        try:
            record = Record.model_validate_json(self._record_path(part).read_bytes())
            check_shard(self.folder / part.name, record.entry, fields)
        except (FileNotFoundError, ValidationError, UserError):
            return None
        return record

    def add(self, part: Part, entry: ShardEntry, class_counts: NDArray[np.int64]) -> None:
        """Marks a shard as finished."""
        record = Record(entry=entry, class_counts=class_counts.tolist())
        write_whole(self._record_path(part), record.model_dump_json().encode())

    def _record_path(self, part: Part) -> Path:
        return self.folder / f"{part.name}.json"

    def collect(
        self, everything: list[Part], fields: Mapping[str, FieldEntry], read_all: bool
    ) -> dict[Part, Record]:
        """Reads the records of all shards; with `read_all` compares every byte with its checksum.

        Raises UserError naming the shards that are missing or altered.
        """
        found: dict[Part, Record] = {}
        missing = []
        for part in everything:
            record = self.record(part, fields)
            if record is None:
                missing.append(part.name)
                continue
            found[part] = record
            if read_all:
                path = self.folder / part.name
                check_contents(path, record.entry, check_shard(path, record.entry, fields))
        if missing:
            raise UserError(
                f"{self.folder}: {len(missing)} of {len(everything)} shards are not packed yet "
                f"({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}); run their jobs"
            )
        return found

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest, removes what is not part of the set, and renames the folder."""
        keep = {MANIFEST, *(text.file for text in manifest.texts)}
        for split in manifest.splits.values():
            keep.update(entry.file for entry in split.shards)
        write_manifest(self.folder, manifest)
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()
        put_in_place(self.folder, self.out)

    def is_bare(self) -> bool:
        """Whether the folder holds no finished shard."""
        return not any(self.folder.glob("*.h5"))

    def discard(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
