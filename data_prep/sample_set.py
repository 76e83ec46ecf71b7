"""Packs a stream of samples into a shard set; used by all data sets except speech."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_prep.arguments import check_common
from hpcddl import __version__
from hpcddl.common.errors import UserError
from hpcddl.common.folders import whole_folder
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import MANIFEST, FieldEntry, Kind, Manifest, TextEntry
from hpcddl.data.shard_writer import ShardSetWriter, write_lines

Block = tuple[str, dict[str, NDArray]]
"""A split, and for each field the (n, *shape) array of its next n samples."""


@dataclass(frozen=True)
class SampleSet:
    """The samples to pack: counted beforehand, and read in `blocks` while they are written.

    `names` are the C classes' (of text: the words'); `sources` name each sample of a split, in
    order; `skipped` lists what was left out.
    """

    kind: Kind
    fields: Mapping[str, FieldEntry]
    names: Sequence[str]
    samples: Mapping[str, int]
    blocks: Iterable[Block]
    provenance: Mapping[str, Any]
    sources: Mapping[str, Iterable[str]] = field(default_factory=dict)
    skipped: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        """Bytes of its samples on disk."""
        one = sum(entry.sample_bytes for entry in self.fields.values())
        return one * sum(self.samples.values())


def pack(
    arguments: argparse.Namespace, tool: str, read: Callable[[argparse.Namespace], SampleSet]
) -> int:
    """Packs the set that `read` makes of a command's arguments, then prints what was packed."""
    began = time.monotonic()
    check_common(arguments)
    with whole_folder(arguments.out, MANIFEST, arguments.overwrite) as folder:
        manifest = _write(read(arguments), folder, tool, arguments.samples_per_shard)
    _summarise(manifest, arguments.out, time.monotonic() - began)
    return 0


def _write(samples: SampleSet, folder: Path, tool: str, per_shard: int) -> Manifest:
    for split, count in samples.samples.items():
        if not count:
            raise UserError(f"the {split} split is empty; it must have samples")
    _check_room(samples, folder)
    # Before the samples, which may take hours: a name may be refused.
    names = _write_text(folder / "names.txt", samples.names)
    sources = {
        split: _write_text(folder / f"{split}.sources", lines)
        for split, lines in samples.sources.items()
    }
    skipped = _write_text(folder / "skipped.txt", samples.skipped) if samples.skipped else None
    total = sum(samples.samples.values())
    with (
        ShardSetWriter(
            folder,
            samples.kind,
            samples.fields,
            classes=len(samples.names),
            samples=samples.samples,
            samples_per_shard=per_shard,
        ) as writer,
        Progress(total, tool, "samples") as progress,
    ):
        for split, arrays in samples.blocks:
            writer.append(split, **arrays)
            progress.add(len(next(iter(arrays.values()))))
        return writer.finish(
            provenance={"tool": tool, "version": __version__, **samples.provenance},
            counts={"samples": dict(samples.samples), "skipped": len(samples.skipped)},
            names=names,
            sources=sources,
            skipped=skipped,
        )


def _check_room(samples: SampleSet, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if samples.bytes > free:
        one = " + ".join(
            f"{' x '.join(map(str, entry.shape)) or '1'} {entry.dtype}"
            for entry in samples.fields.values()
        )
        raise UserError(
            f"--out {folder.parent}: {sum(samples.samples.values())} samples of {one} take "
            f"{_size(samples.bytes)}, {_size(free)} are free"
        )


def _size(count: int) -> str:
    tebi = count >= 2**40
    return f"{count / 2 ** (40 if tebi else 30):.1f} {'TiB' if tebi else 'GiB'}"


def _write_text(path: Path, lines: Iterable[str]) -> TextEntry:
    return write_lines(path, map(_one_line, lines))


def _one_line(name: str) -> str:
    # File systems allow names with line breaks, and of bytes that are no text.
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!a}: must be UTF-8") from None
    if "\n" in name:
        raise UserError(f"{name!r}: must be one line")
    return name


def _summarise(manifest: Manifest, out: Path, seconds: float) -> None:
    if manifest.skipped:
        print(f"skipped {manifest.skipped.lines} (named in {manifest.skipped.file})")
    entry = manifest.fields.get("features") or manifest.fields["tokens"]
    what = "tokens"
    if entry.shape:
        what = f"samples of {' x '.join(map(str, entry.shape))}"
    for name, split in manifest.splits.items():
        print(f"{name}: {split.samples} {what}, {len(split.shards)} shards")
    size = sum(split.bytes for split in manifest.splits.values()) / 2**30
    seen = sum(count > 0 for count in manifest.class_counts)
    print(
        f"{out}: {manifest.classes} classes ({seen} seen in training), "
        f"{entry.dtype}, {size:.3f} GiB, {seconds:.1f} s"
    )
