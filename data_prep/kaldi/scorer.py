"""Scores whole Kaldi data folders, with features made as those the network was trained on."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_prep.kaldi.frame_scores import log_posteriors
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.shared_archive import Entries, write_shared
from data_prep.kaldi.stream_options import StreamOptions, is_ivectors
from data_prep.kaldi.streams import Streams
from data_prep.kaldi.table import Table
from data_prep.kaldi.write import write_float
from hpcddl.common.errors import UserError
from hpcddl.common.progress import Progress
from hpcddl.data.manifest import Manifest
from hpcddl.run.trained import Trained
from hpcddl.training.evaluate import log_prior


class Scorer:
    """Scores utterances in the order of the first folder's feats.scp, one in memory at a time."""

    def __init__(
        self,
        trained: Trained,
        manifest: Manifest,
        options: tuple[StreamOptions, ...],
        path_map: tuple[str, ...],
        allow_pipes: bool,
        hop: int,
        prior_scale: float,
    ) -> None:
        self._trained, self._manifest, self._hop = trained, manifest, hop
        self._world = trained.world
        counts = np.asarray(manifest.class_counts)
        weights = next(trained.model.parameters())
        self._subtracted = (prior_scale * log_prior(counts)).to(weights)
        data = next(one.directory for one in options if not is_ivectors(one.directory))
        with ExitStack() as opened:
            self._lines = opened.enter_context(Table(data / "feats.scp"))
            self._speakers: Table | None = None
            if any(one.normalises and one.stats is None for one in options):
                self._speakers = opened.enter_context(Table(data / "utt2spk"))
            self._streams = opened.enter_context(
                Streams(
                    options,
                    PathMap.parse(path_map, near=data),
                    length_tolerance=manifest.provenance["length_tolerance"],
                    allow_pipes=allow_pipes,
                )
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self, out: Path) -> NDArray[np.int32]:
        """Writes all scores to `out`; (U,) frames of the utterances. Collective.

        Ranks take consecutive utterances of about equally many frames. Raises UserError naming the
        utterance that cannot be scored.
        """
        first = self._world.rank == 0
        found = self._world.together(lambda: self._survey() if first else None)
        frames: NDArray[np.int32] = self._world.comm.bcast(found)
        ends = np.cumsum(frames, dtype=np.int64)
        total, ranks = int(ends[-1]), self._world.size
        begin, end = np.searchsorted(
            ends, [total * rank // ranks for rank in (self._world.rank, self._world.rank + 1)]
        )
        end = len(frames) if self._world.rank + 1 == ranks else end

        def part(file: BinaryIO) -> Entries:
            with Progress(end - begin, f"rank 0 of {ranks}", shown=first) as progress:
                entries = []
                for line in islice(self._lines, begin, end):
                    scores = self.scores(line.key, int(frames[line.number]))
                    entries.append((line.key, write_float(file, line.key, scores)))
                    progress.add()
                return entries

        write_shared(out, self._world, part)
        return frames

    def scores(self, utterance: str, frames: int) -> NDArray[np.float32]:
        """(T, C) log posteriors minus the scaled log prior of an utterance of T frames."""
        logs = log_posteriors(
            self._trained.network,
            self.features(utterance, frames).to(self._subtracted),
            classes=self._manifest.classes,
            window=self._manifest.fields["features"].shape[0],
            hop=self._hop,
        )
        return (logs - self._subtracted).float().cpu().numpy()

    def features(self, utterance: str, frames: int) -> Tensor:
        """(T, D) an utterance's features as a shard would store them."""
        speaker = self._speakers.find(utterance) if self._speakers else None
        read = torch.from_numpy(
            self._streams.read(utterance, speaker.value if speaker else "", frames)
        )
        field = self._manifest.fields["features"]
        stored = read.to(getattr(torch, field.dtype)).float()
        if not stored.isfinite().all():
            raise UserError(
                f"{utterance}: a feature is beyond {field.dtype}, in which the shards hold them"
            )
        return stored

    def _survey(self) -> NDArray[np.int32]:
        """(U,) frames of each utterance, after checking that all can be scored."""
        frames = np.empty(len(self._lines), np.int32)
        with Progress(len(self._lines), "lengths") as progress:
            for line in self._lines:
                found = self._streams.survey(line.key)
                if isinstance(found, str):
                    raise UserError(f"{line.key}: {found}")
                if self._speakers and self._speakers.find(line.key) is None:
                    raise UserError(f"{line.key}: no speaker in {self._speakers.path}")
                frames[line.number] = found.shortest
                progress.add()
        if not len(frames):
            raise UserError(f"{self._lines.path}: no utterances")
        wanted = self._manifest.fields["features"].shape[1]
        if self._streams.dimension != wanted:
            raise UserError(
                f"--feats: {self._streams.dimension} features per frame, the network takes {wanted}"
            )
        return frames
