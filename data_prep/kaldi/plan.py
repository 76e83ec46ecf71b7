"""The plan of a packing: which utterances give which windows, before anything is packed.

One pass over the alignments finds lengths, speakers and places; every job then packs its shards
from the same plan. Per utterance it holds a few numbers, no names, so that millions fit in memory.
"""

from __future__ import annotations

import io
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.corpus import KaldiCorpus
from data_prep.kaldi.speakers import drawn, families, named
from data_prep.kaldi.windows import remainders, window_counts
from data_prep.packing import SPLITS
from hpcddl.common.errors import UserError
from hpcddl.common.files import write_whole
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import TextEntry
from hpcddl.data.shard_writer import write_lines

_PLAN = "plan.json"
_ARRAYS = "plan.npz"
SKIPPED = "skipped.txt"


@dataclass(frozen=True)
class Windows:
    """How utterances are cut: windows of T frames, in training one every `hop` frames."""

    frames: int
    hop: int

    def hop_of(self, split: str) -> int:
        """Held-out windows never overlap: each frame counts once in an evaluation."""
        return self.hop if split == "train" else self.frames


@dataclass(frozen=True)
class HeldOut:
    """Which speakers are held out: those named, or a drawn fraction of the frames."""

    speakers: tuple[str, ...]
    fraction: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """Arrays over the utterances that are packed, in the order of the alignments."""

    record: NDArray[np.int64]  # (U,) which alignment of all files, from 0
    frames: NDArray[np.int32]  # (U,) that features and alignment share
    speaker: NDArray[np.int32]  # (U,) index into `speakers`
    split: NDArray[np.int8]  # (U,) index into SPLITS
    name_line: NDArray[np.int64]  # (U,) where utt2spk has it, in bytes
    file_ends: NDArray[np.int64]  # (F,) alignments in all files up to each
    speakers: list[str]
    dimension: int  # D, all streams together
    samples: dict[str, int]
    counts: dict[str, Any]
    texts: dict[str, TextEntry] = field(default_factory=dict)

    def utterances(self, split: str) -> NDArray[np.intp]:
        """Indices of a split's utterances."""
        return np.flatnonzero(self.split == SPLITS.index(split))


class _Survey:
    """The plan's arrays while the alignments are read."""

    def __init__(self) -> None:
        self.record, self.name_line = array("q"), array("q")
        self.frames, self.speaker = array("i"), array("i")
        self.speakers: dict[str, int] = {}
        self.skipped: Counter[str] = Counter()
        # On disk when it is long: all of a corpus may be unusable.
        self.skipped_lines: IO[str] = tempfile.SpooledTemporaryFile(1 << 20, "w+")  # noqa: SIM115

    def skip(self, reason: str, utterance: str) -> None:
        self.skipped[reason] += 1
        self.skipped_lines.write(f"{utterance} {reason}\n")


def make_plan(corpus: KaldiCorpus, windows: Windows, heldout: HeldOut) -> tuple[Plan, IO[str]]:
    """The plan, and the utterances that are not packed, one `utterance reason` a line.

    Raises UserError for an utterance without speaker, aligned twice, or an empty split.
    """
    survey = _Survey()
    try:
        return _plan(corpus, survey, windows, heldout), survey.skipped_lines
    except BaseException:
        survey.skipped_lines.close()
        raise


def _plan(corpus: KaldiCorpus, survey: _Survey, windows: Windows, heldout: HeldOut) -> Plan:
    ends = _look_at_all(corpus, survey)
    if not survey.frames:
        reasons = ", ".join(f"{count}: {reason}" for reason, count in survey.skipped.items())
        raise UserError(f"{corpus.data}: no utterance can be packed ({reasons or 'none there'})")
    frames = np.asarray(survey.frames)
    speaker = np.asarray(survey.speaker)
    names = list(survey.speakers)
    chosen = _held_out(corpus, survey, names, frames, speaker, heldout)
    split = np.isin(speaker, [survey.speakers[name] for name in chosen]).astype(np.int8)
    hop = np.where(split == 0, windows.hop_of("train"), windows.hop_of("heldout"))
    count = window_counts(frames, windows.frames, hop)
    dropped = remainders(frames, windows.frames, hop)
    for line in np.asarray(survey.name_line)[count == 0].tolist():
        survey.skip(f"shorter than {windows.frames} frames", corpus.speakers.at(line).key)
    kept = count > 0
    plan = Plan(
        record=np.asarray(survey.record)[kept],
        frames=frames[kept],
        speaker=speaker[kept],
        split=split[kept],
        name_line=np.asarray(survey.name_line)[kept],
        file_ends=np.array(ends, np.int64),
        speakers=names,
        dimension=corpus.streams.dimension,
        samples={name: int(count[split == k].sum()) for k, name in enumerate(SPLITS)},
        counts={
            "utterances": {n: int((split[kept] == k).sum()) for k, n in enumerate(SPLITS)},
            "speakers": {
                n: len(np.unique(speaker[kept & (split == k)])) for k, n in enumerate(SPLITS)
            },
            "frames": {n: int(frames[split == k].sum()) for k, n in enumerate(SPLITS)},
            "remainder_frames": {n: int(dropped[split == k].sum()) for k, n in enumerate(SPLITS)},
            "skipped": dict(survey.skipped),
        },
    )
    for name, number in plan.samples.items():
        if not number:
            raise UserError(
                f"{corpus.data}: the {name} split is empty ({len(frames)} utterances usable, "
                f"{len(chosen)} speakers held out); both must have windows"
            )
    return plan


def _look_at_all(corpus: KaldiCorpus, found: _Survey) -> list[int]:
    """Fills `found`; returns how many alignments there are up to the end of each file."""
    seen = bytearray(len(corpus.speakers))
    ends = []
    record = 0
    with Progress(len(corpus.speakers), "lengths") as progress:
        for path in corpus.files:
            for utterance, labels in corpus.alignments(path):
                _look(corpus, found, seen, record, utterance, len(labels))
                record += 1
                progress.add()
            ends.append(record)
    for line in corpus.speakers:
        if not seen[line.number]:
            found.skip("no alignment", line.key)
    return ends


def _look(
    corpus: KaldiCorpus, found: _Survey, seen: bytearray, record: int, utterance: str, labels: int
) -> None:
    line = corpus.speakers.find(utterance)
    if line is not None and seen[line.number]:
        raise UserError(f"{utterance}: aligned twice, expected once")
    if line is not None:
        seen[line.number] = 1
    place = corpus.streams.survey(utterance)
    if isinstance(place, str):
        found.skip(place, utterance)
    elif line is None:
        raise UserError(f"{utterance}: no speaker in {corpus.speakers.path}")
    elif not place.shortest <= labels <= place.longest:
        found.skip("features and alignment of different lengths", utterance)
    else:
        found.record.append(record)
        found.name_line.append(line.offset)
        found.frames.append(place.shortest)
        found.speaker.append(found.speakers.setdefault(line.value, len(found.speakers)))


def _held_out(
    corpus: KaldiCorpus,
    survey: _Survey,
    names: list[str],
    frames: NDArray[np.int32],
    speaker: NDArray[np.int32],
    heldout: HeldOut,
) -> set[str]:
    def copies() -> Iterator[tuple[str, str]]:
        for line, owner in zip(survey.name_line, survey.speaker, strict=True):
            yield names[owner], corpus.original(corpus.speakers.at(line).key)

    family_of = families(copies())
    if heldout.speakers:
        return named(heldout.speakers, family_of)
    held = np.bincount(speaker, weights=frames, minlength=len(names)).astype(np.int64)
    frames_of = dict(zip(names, held.tolist(), strict=True))
    return drawn(frames_of, family_of, heldout.fraction, heldout.seed)


def save_plan(
    folder: Path, corpus: KaldiCorpus, plan: Plan, skipped: IO[str], asked: dict[str, Any]
) -> Plan:
    """Writes the plan and the set's text files into a packing's folder; the plan with them.

    `asked` are the options and inputs that the plan was made for. Several jobs may do this at once:
    they write the same.
    """
    texts = {}
    for split in SPLITS:
        lines = (corpus.speakers.at(at) for at in plan.name_line[plan.utterances(split)].tolist())
        texts[split] = write_lines(
            folder / f"{split}.utt2spk", (f"{line.key} {line.value}" for line in lines)
        )
    skipped.seek(0)
    texts["skipped"] = write_lines(folder / SKIPPED, (line.rstrip("\n") for line in skipped))
    everything = asdict(plan)
    arrays = {key: value for key, value in everything.items() if isinstance(value, np.ndarray)}
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_whole(folder / _ARRAYS, stream.getvalue())
    rest = {key: value for key, value in everything.items() if key not in arrays}
    rest["texts"] = {name: text.model_dump() for name, text in texts.items()}
    write_whole(folder / _PLAN, json.dumps({"asked": asked, "plan": rest}, indent=1).encode())
    return load_plan(folder, asked)  # type: ignore[return-value]


def load_plan(folder: Path, asked: dict[str, Any]) -> Plan | None:
    """The plan in a packing's folder, or None.

    Raises UserError when it was made for other options or inputs, or cannot be read.
    """
    if not (folder / _PLAN).exists():
        return None
    try:
        saved = json.loads((folder / _PLAN).read_text())
        with np.load(io.BytesIO((folder / _ARRAYS).read_bytes())) as arrays:
            plan = {**saved["plan"], **arrays}
        before = dict(saved["asked"])
        texts = {name: TextEntry.model_validate(text) for name, text in plan["texts"].items()}
        found = Plan(**{**plan, "texts": texts})
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(
            f"{folder}: an unfinished packing whose plan cannot be read ({error}); "
            "remove the folder to start over"
        ) from None
    for key in sorted({*asked, *before}):
        if before.get(key) != asked.get(key):
            raise UserError(
                f"{folder}: an unfinished packing with {key} {before.get(key)}, now "
                f"{asked.get(key)}; go on with the same options and inputs, or remove the folder "
                "to start over"
            )
    return found
