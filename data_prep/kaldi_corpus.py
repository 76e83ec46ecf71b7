"""A Kaldi data folder and an alignment folder as one stream of labelled utterances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.features import Cmvn, add_deltas, check_finite, cmvn
from data_prep.kaldi_alignments import alignment_files, read_alignments
from data_prep.kaldi_scp import Entry, MatrixReader, PathMap, read_scp, read_table
from data_prep.transition_model import TransitionModel, read_transition_model
from hpcddl.errors import UserError


@dataclass
class Survey:
    """What a first pass finds: usable utterances in order, and the others by reason, all named."""

    frames_of: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    dimension: int = 0  # of the stored features

    def skip(self, reason: str, utterance: str) -> None:
        """Counts and names an utterance that cannot be used."""
        self.skipped.setdefault(reason, []).append(utterance)


class KaldiCorpus:
    """Utterances in the order of the alignments; features are read where the scp says.

    Nothing of an utterance is kept after it has been passed on. All methods raise UserError naming
    what is missing, cut or garbled.
    """

    def __init__(self, data: Path, alignments: Path, model: Path, paths: PathMap) -> None:
        self.model: TransitionModel = read_transition_model(model)
        self.speaker_of = read_table(data / "utt2spk")
        unique = data / "utt2uniq"
        self.original_of = read_table(unique) if unique.is_file() else {}
        self._features = read_scp(data / "feats.scp", paths)
        self._cmvn_scp = data / "cmvn.scp"
        self._paths = paths
        self._stats: dict[str, Entry] | None = None
        self._reader = MatrixReader(paths)
        self._files = alignment_files(alignments)

    def __enter__(self) -> KaldiCorpus:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def __len__(self) -> int:
        """Utterances with features; about what a pass goes through."""
        return len(self._features)

    def alignments(self) -> Iterator[tuple[str, NDArray[np.int32]]]:
        """Every aligned utterance and its pdf-ids, (T,)."""
        for path in self._files:
            for utterance, transition_ids in read_alignments(path):
                try:
                    yield utterance, self.model.pdfs(transition_ids)
                except ValueError as error:
                    raise UserError(f"{utterance}: {path}: {error}") from None

    def survey(self, passing: Iterator[tuple[str, NDArray[np.int32]]]) -> Survey:
        """Lengths of all utterances, from the heads of the matrices and the alignments."""
        found = Survey()
        seen: set[str] = set()
        for utterance, labels in passing:
            if utterance in seen:
                raise UserError(f"{utterance}: aligned twice, expected once")
            seen.add(utterance)
            if utterance not in self._features:
                found.skip("aligned, but no features", utterance)
                continue
            entry = self._features[utterance]
            frames, dimension = self._reader.shape(entry)
            found.dimension = found.dimension or dimension
            if dimension != found.dimension and frames:
                raise UserError(
                    f"{utterance}: {entry.path}:{entry.offset}: {dimension} features per frame, "
                    f"expected {found.dimension} as before"
                )
            if utterance not in self.speaker_of:
                raise UserError(f"{utterance}: no speaker in utt2spk")
            if frames != len(labels):
                found.skip("features and alignment of different lengths", utterance)
            else:
                found.frames_of[utterance] = frames
        for utterance in self._features:
            if utterance not in seen:
                found.skip("no alignment", utterance)
        return found

    def features(
        self, utterance: str, normalise: Cmvn | None, delta_order: int
    ) -> NDArray[np.float32]:
        """(T, (order+1) D) the features of one utterance, all finite."""
        matrix = self._reader.read(self._features[utterance])
        check_finite(utterance, matrix)
        features = matrix.astype(np.float32, copy=False)
        if normalise is not None:
            if len(normalise.scale) != features.shape[1]:
                raise UserError(
                    f"{self._cmvn_scp}: {self.speaker_of[utterance]}: statistics of "
                    f"{len(normalise.scale)} features, expected {features.shape[1]}"
                )
            features = normalise(features)
        return add_deltas(features, delta_order)

    def normalisation(self, speaker: str, norm_vars: bool) -> Cmvn:
        """The speaker's CMVN."""
        if self._stats is None:
            if not self._cmvn_scp.is_file():
                raise UserError(f"{self._cmvn_scp}: no such file; allowed without it: --no-cmvn")
            self._stats = read_scp(self._cmvn_scp, self._paths)
        if speaker not in self._stats:
            raise UserError(f"{self._cmvn_scp}: no statistics for speaker {speaker}")
        reader = MatrixReader(self._paths)
        try:
            return cmvn(reader.read(self._stats[speaker]), norm_vars)
        except ValueError as error:
            raise UserError(f"{self._cmvn_scp}: {speaker}: {error}") from None
        finally:
            reader.close()
