"""Packs a Kaldi corpus in two passes, lengths and values, so that memory does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.features import Cmvn
from data_prep.kaldi_corpus import KaldiCorpus, Survey
from data_prep.kaldi_scp import PathMap
from data_prep.progress import progress
from data_prep.speakers import drawn, families, named
from data_prep.windows import cut, remainder, window_count, window_starts
from hpcddl import __version__
from hpcddl.data.manifest import Manifest
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.errors import UserError

_FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Options:
    """Checked options of one packing; `hop` is that of the training split."""

    data: Path
    alignments: Path
    model: Path
    map: tuple[str, ...]
    frames: int
    hop: int
    dtype: str
    delta_order: int
    norm_means: bool
    norm_vars: bool
    heldout_speakers: tuple[str, ...]
    heldout_fraction: float
    seed: int
    windows_per_shard: int

    def hop_of(self, split: str) -> int:
        """Held-out windows never overlap: each frame counts once in an evaluation."""
        return self.hop if split == "train" else self.frames


def _two() -> dict[str, list[str]]:
    return {"train": [], "heldout": []}


@dataclass
class _Plan:
    """Who goes where, after the first pass and before the second."""

    split_of: dict[str, str] = field(default_factory=dict)
    utterances: dict[str, list[str]] = field(default_factory=_two)
    speakers: dict[str, list[str]] = field(default_factory=_two)
    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_two(), 0))
    remainder_frames: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_two(), 0))


def pack(options: Options, folder: Path) -> Manifest:
    """Packs into an existing empty folder: one pass for lengths, one for values.

    Raises UserError for anything wrong with the corpus, naming the utterance and the file.
    """
    paths = PathMap.parse(options.map, near=options.data)
    with KaldiCorpus(options.data, options.alignments, options.model, paths) as corpus:
        survey = corpus.survey(progress(corpus.alignments(), len(corpus), "lengths"))
        plan = _plan(options, corpus, survey)
        with ShardSetWriter(
            folder,
            frames=options.frames,
            features=survey.dimension * (options.delta_order + 1),
            classes=corpus.model.num_pdfs,
            dtype=options.dtype,
            windows=plan.windows,
            windows_per_shard=options.windows_per_shard,
        ) as writer:
            _write(options, corpus, plan, writer)
            return writer.finish(
                utterances=plan.utterances,
                speakers=plan.speakers,
                utterance_speaker={
                    split: _numbers(plan.speakers[split], map(corpus.speaker_of.__getitem__, names))
                    for split, names in plan.utterances.items()
                },
                provenance=_provenance(options, survey),
                counts={
                    "utterances": {split: len(names) for split, names in plan.utterances.items()},
                    "remainder_frames": plan.remainder_frames,
                    "skipped": survey.skipped,
                },
            )


def _write(options: Options, corpus: KaldiCorpus, plan: _Plan, writer: ShardSetWriter) -> None:
    """The second pass: every window of every planned utterance."""
    normalise: dict[str, Cmvn | None] = {
        speaker: corpus.normalisation(speaker, options.norm_vars) if options.norm_means else None
        for speakers in plan.speakers.values()
        for speaker in speakers
    }
    written = dict.fromkeys(plan.windows, 0)  # utterances of each split so far
    wanted = ((name, labels) for name, labels in corpus.alignments() if name in plan.split_of)
    for utterance, labels in progress(wanted, len(plan.split_of), "packing"):
        split = plan.split_of[utterance]
        features = corpus.features(
            utterance, normalise[corpus.speaker_of[utterance]], options.delta_order
        )
        if options.dtype == "float16" and np.abs(features).max() > _FLOAT16_MAX:
            raise UserError(
                f"{utterance}: a feature of size {np.abs(features).max():.3g} is beyond float16; "
                "allowed: --dtype float32"
            )
        starts = window_starts(len(labels), options.frames, options.hop_of(split))
        writer.append(
            split,
            cut(features, starts, options.frames),
            cut(labels, starts, options.frames),
            np.full(len(starts), written[split], np.int32),
            starts,
        )
        written[split] += 1


def _numbers(names: list[str], of: Iterable[str]) -> list[int]:
    number = {name: index for index, name in enumerate(names)}
    return [number[name] for name in of]


def _heldout(options: Options, corpus: KaldiCorpus, survey: Survey) -> set[str]:
    frames_of: dict[str, int] = {}
    for utterance, frames in survey.frames_of.items():
        speaker = corpus.speaker_of[utterance]
        frames_of[speaker] = frames_of.get(speaker, 0) + frames
    used = {utterance: corpus.speaker_of[utterance] for utterance in survey.frames_of}
    family_of = families(used, corpus.original_of)
    if options.heldout_speakers:
        return named(options.heldout_speakers, family_of)
    return drawn(frames_of, family_of, options.heldout_fraction, options.seed)


def _plan(options: Options, corpus: KaldiCorpus, survey: Survey) -> _Plan:
    heldout = _heldout(options, corpus, survey)
    plan = _Plan()
    for utterance, frames in survey.frames_of.items():
        split = "heldout" if corpus.speaker_of[utterance] in heldout else "train"
        hop = options.hop_of(split)
        count = window_count(frames, options.frames, hop)
        plan.windows[split] += count
        plan.remainder_frames[split] += remainder(frames, options.frames, hop)
        if count:
            plan.split_of[utterance] = split
            plan.utterances[split].append(utterance)
        else:
            survey.skip(f"shorter than {options.frames} frames", utterance)
    for split, names in plan.utterances.items():
        plan.speakers[split] = sorted({corpus.speaker_of[name] for name in names})
        if not names:
            raise UserError(
                f"{options.data}: the {split} split is empty ({len(survey.frames_of)} utterances "
                f"usable, {len(heldout)} speakers held out); allowed: both splits with windows"
            )
    return plan


def _provenance(options: Options, survey: Survey) -> dict[str, Any]:
    return {
        "tool": "hpcddl prep kaldi",
        "version": __version__,
        "data": str(options.data),
        "alignments": str(options.alignments),
        "model": str(options.model),
        "map": list(options.map),
        "stored_features": survey.dimension,
        "norm_means": options.norm_means,
        "norm_vars": options.norm_vars,
        "delta_order": options.delta_order,
        "hop": options.hop,
        "heldout_speakers": list(options.heldout_speakers),
        "heldout_fraction": None if options.heldout_speakers else options.heldout_fraction,
        "seed": options.seed,
    }
