"""A Kaldi experiment as packing sees it: tables of names, streams of features, labelled frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.speakers import original_name
from data_prep.kaldi.stream_options import StreamOptions, is_ivectors
from data_prep.kaldi.streams import Streams
from data_prep.kaldi.table import Table
from data_prep.kaldi.transition_model import TransitionModel, read_transition_model
from hpcddl.common.errors import UserError


@dataclass(frozen=True)
class Sources:
    """What to pack: feature folders in paste order, alignments, and how to read them.

    `classes` is the model that maps transition-ids to pdf-ids, or the number of the pdf-ids that
    the alignments hold themselves.
    """

    streams: tuple[StreamOptions, ...]
    alignments: Path
    classes: Path | int
    map: tuple[str, ...]
    length_tolerance: int
    allow_pipes: bool


class KaldiCorpus:
    """A Kaldi experiment: reads one utterance at a time, and keeps its tables on disk.

    All methods raise UserError naming what is missing, cut or garbled.
    """

    def __init__(self, sources: Sources) -> None:
        folders = [stream.directory for stream in sources.streams]
        # The first that knows speakers; online i-vectors have none beside them.
        self.data = next((one for one in folders if not is_ivectors(one)), folders[0])
        self._model: TransitionModel | None = None
        if isinstance(sources.classes, Path):
            self._model = read_transition_model(sources.classes)
            self.classes = self._model.num_pdfs
        else:
            self.classes = sources.classes
        self.files = alignment_files(sources.alignments, "ali" if self._model else "pdf")
        paths = PathMap.parse(sources.map, near=self.data)
        with ExitStack() as opened:
            self.speakers = opened.enter_context(Table(self.data / "utt2spk"))
            unique = self.data / "utt2uniq"
            self._originals = opened.enter_context(Table(unique)) if unique.is_file() else None
            self.streams = opened.enter_context(
                Streams(
                    sources.streams,
                    paths,
                    length_tolerance=sources.length_tolerance,
                    allow_pipes=sources.allow_pipes,
                )
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> KaldiCorpus:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def original(self, utterance: str) -> str:
        """The utterance that this one is a copy of: by utt2uniq, or by its name, or itself."""
        line = self._originals.find(utterance) if self._originals else None
        return line.value if line else original_name(utterance)

    def alignments(
        self, path: Path, wanted: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[str, NDArray[np.int32]]]:
        """Utterances of a file and their ids, (T,); only the records `wanted` by number."""
        return read_alignments(path, wanted)

    def labels(self, path: Path, utterance: str, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T,) the class of each frame."""
        try:
            if self._model is not None:
                return self._model.pdfs(ids)
            if len(ids) and not 0 <= ids.min() <= ids.max() < self.classes:
                span = f"{ids.min()} .. {ids.max()}"
                raise ValueError(f"pdf-ids span {span}: must be 0 .. {self.classes - 1}")
        except ValueError as error:
            raise UserError(f"{utterance}: {path}: {error}") from None
        return ids
