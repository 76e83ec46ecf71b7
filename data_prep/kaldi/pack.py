"""Packs the windows of a plan into shards, with the same bytes whichever job writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data_prep.kaldi.corpus import KaldiCorpus
from data_prep.kaldi.plan import Plan, Windows
from data_prep.kaldi.windows import cut, window_counts
from data_prep.packing import SPLITS, Packing, Part, Record
from hpcddl import __version__
from hpcddl.common.errors import UserError
from hpcddl.data.manifest import FieldEntry, Manifest, SplitEntry, window_fields
from hpcddl.data.shard_file import ShardWriter
from hpcddl.data.shard_writer import class_counts
from hpcddl.data.values import first_fault

Arrays = dict[str, NDArray]
_BATCH_BYTES = 1 << 20  # what stays in a core's cache


@dataclass(frozen=True)
class Layout:
    """How windows are stored."""

    windows: Windows
    dtype: Literal["float16", "float32"]
    per_shard: int

    def fields(self, plan: Plan) -> dict[str, FieldEntry]:
        """The datasets of every shard."""
        return window_fields(self.windows.frames, plan.dimension, self.dtype)


def pack_parts(
    corpus: KaldiCorpus,
    plan: Plan,
    layout: Layout,
    packing: Packing,
    wanted: list[Part],
    done: Callable[[int], None],
) -> None:
    """Writes the shards `wanted` (in order) into the packing's folder; `done(n)` after n windows.

    Shards that follow each other are written from one pass over alignments and features. Raises
    UserError for anything wrong with the corpus, naming the utterance and the file.
    """
    fields = layout.fields(plan)
    batch = _Batch(fields)
    for run in _runs(wanted):
        first, last = run[0].first, run[-1].first + run[-1].samples
        stream = _windows(corpus, plan, layout, run[0].split, first, last)
        for part in run:
            counts = np.zeros(corpus.classes, np.int64)
            with ShardWriter(
                packing.folder / part.name, fields, part.samples, corpus.classes
            ) as shard:
                while shard.room:
                    arrays = batch.fill(stream, shard.room)
                    _check_values(corpus, plan, part.split, arrays)
                    counts += class_counts(arrays["labels"], corpus.classes)
                    shard.append(arrays)
                    done(len(arrays["labels"]))
                packing.add(part, shard.seal(), counts)


class _Batch:
    """Windows of several utterances in their stored types, as a call per window would be slow."""

    def __init__(self, fields: dict[str, FieldEntry]) -> None:
        sample_bytes = sum(field.sample_bytes for field in fields.values())
        self._capacity = max(1, _BATCH_BYTES // sample_bytes)
        self._arrays = {
            name: np.empty((self._capacity, *field.shape), field.type)
            for name, field in fields.items()
        }
        # torch narrows to float16 ten times faster than NumPy; both round to nearest even.
        self._features = torch.from_numpy(self._arrays["features"])
        self._left: Arrays = {}

    def fill(self, stream: Iterator[Arrays], most: int) -> Arrays:
        """The next windows of the stream, `most` or as many as fit; valid until the next call."""
        count = min(most, self._capacity)
        filled = 0
        while filled < count:
            arrays = self._left or next(stream)
            there = len(arrays["labels"])
            end = min(count, filled + there)
            taken = end - filled
            for name, array in arrays.items():
                if name == "features":
                    self._features[filled:end] = torch.from_numpy(array[:taken])
                else:
                    self._arrays[name][filled:end] = array[:taken]
            self._left = {}
            if taken < there:
                self._left = {name: array[taken:] for name, array in arrays.items()}
            filled = end
        return {name: array[:count] for name, array in self._arrays.items()}


def _check_values(corpus: KaldiCorpus, plan: Plan, split: str, arrays: Arrays) -> None:
    """Looks at values as they are stored; matrices were found finite before.

    Raises:
        UserError: a feature that float16 has made infinite, with its utterance.
    """
    fault = first_fault(arrays, corpus.classes)
    if fault is None:
        return
    number = arrays["utterance"][fault.sample]
    line = corpus.speakers.at(int(plan.name_line[plan.utterances(split)[number]]))
    if np.isinf(arrays["features"][fault.sample]).any() and arrays["features"].itemsize == 2:
        raise UserError(f"{line.key}: a feature is beyond float16; fix: --dtype float32")
    raise UserError(f"{line.key}: {fault.text}")


def _runs(wanted: list[Part]) -> list[list[Part]]:
    """Groups parts that follow each other in the same split."""
    runs: list[list[Part]] = []
    for part in wanted:
        last = runs[-1][-1] if runs else None
        if last and (last.split, last.number + 1) == (part.split, part.number):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _windows(
    corpus: KaldiCorpus, plan: Plan, layout: Layout, split: str, first: int, last: int
) -> Iterator[Arrays]:
    """The windows `first` .. `last` - 1 of a split, one utterance's at a time.

    Arrays are valid until the next ones are asked for.
    """
    window, hop = layout.windows.frames, layout.windows.hop_of(split)
    chosen = plan.utterances(split)
    ends = np.cumsum(window_counts(plan.frames[chosen], window, hop))
    begin, end = np.searchsorted(ends, [first, last - 1], side="right").tolist()
    starts = np.concatenate([[0], ends[:-1]]).tolist()
    for number, features, labels in _utterances(corpus, plan, chosen, begin, end + 1):
        skip = max(0, first - starts[number])
        rows = slice(skip, last - starts[number])
        labels = cut(labels, window, hop)[rows]
        yield {
            "features": cut(features, window, hop)[rows],
            "labels": labels,
            "utterance": np.full(len(labels), number, np.int32),
            "start": np.arange(skip, skip + len(labels), dtype=np.int32) * np.int32(hop),
        }


def _utterances(
    corpus: KaldiCorpus, plan: Plan, chosen: NDArray[np.intp], begin: int, end: int
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int32]]]:
    """Number in the split, (T, D) features and (T,) labels of a split's utterances begin .. end."""
    number = begin
    while number < end:
        file = int(np.searchsorted(plan.file_ends, plan.record[chosen[number]], side="right"))
        start = int(plan.file_ends[file - 1]) if file else 0
        stop = begin + int(
            np.searchsorted(plan.record[chosen[begin:end]], plan.file_ends[file], side="left")
        )
        wanted = bytearray(int(plan.file_ends[file]) - start)
        np.frombuffer(wanted, np.uint8)[plan.record[chosen[number:stop]] - start] = 1
        path = corpus.files[file]
        for name, ids in corpus.alignments(path, partial(_is_set, wanted)):
            at = chosen[number]
            frames = int(plan.frames[at])
            features = corpus.streams.read(name, plan.speakers[plan.speaker[at]], frames)
            yield number, features, corpus.labels(path, name, ids)[:frames]
            number += 1
            if number == stop:
                break
        else:
            raise UserError(f"{path}: fewer alignments than when the packing was planned")


def _is_set(flags: bytearray, number: int) -> bool:
    return flags[number] == 1


def manifest(
    corpus: KaldiCorpus,
    plan: Plan,
    layout: Layout,
    records: dict[Part, Record],
    provenance: dict[str, Any],
) -> Manifest:
    """The manifest of a packed plan."""
    counts = np.zeros(corpus.classes, np.int64)
    for part, record in records.items():
        if part.split == "train":
            counts += np.array(record.class_counts)
    return Manifest(
        kind="frames",
        fields=layout.fields(plan),
        classes=corpus.classes,
        class_counts=counts.tolist(),
        splits={
            split: SplitEntry(
                samples=plan.samples[split],
                shards=[record.entry for part, record in records.items() if part.split == split],
                sources=plan.texts[split],
            )
            for split in SPLITS
        },
        skipped=plan.texts["skipped"],
        provenance={"tool": "hpcddl prep kaldi", "version": __version__, **provenance},
        counts=plan.counts,
    )
