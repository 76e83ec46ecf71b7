"""One feature folder as packing reads it: normalised frames with deltas, or i-vectors."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.cmvn import Normalisations
from data_prep.kaldi.features import Deltas, check_finite
from data_prep.kaldi.matrix import BadRecordError
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Entry, Scp, fault
from data_prep.kaldi.stream_options import StreamOptions
from data_prep.kaldi.table import Line, Table
from hpcddl.common.errors import UserError

_IVECTOR_TOLERANCE = 100  # frames; the length-tolerance of Kaldi's nnet3-get-egs


class _Stream:
    """What both kinds share: the scp file and the number of columns, 0 until one was seen.

    Files opened are closed with `files`. All methods raise UserError naming utterance and file.
    """

    def __init__(self, scp: Path, paths: PathMap, allow_pipes: bool, files: ExitStack) -> None:
        self._scp = files.enter_context(closing(Scp(scp, paths, allow_pipes)))
        self._directory = scp.parent
        self.columns = 0

    def find(self, utterance: str) -> Line | None:
        """The utterance's line in the scp file."""
        return self._scp.find(utterance)

    def learn(self, utterance: str) -> None:
        """Sees the number of columns of the utterance, if none was seen."""
        if not self.columns:
            self._rows(self._scp.entry_of(utterance))

    def _rows(self, entry: Entry) -> int:
        rows, columns = self._scp.reader.shape(entry)
        # Of an empty matrix Kaldi writes no columns.
        if rows:
            try:
                self._check(columns)
            except BadRecordError as error:
                raise fault(entry, error) from None
        return rows

    def _check(self, columns: int) -> None:
        self.columns = self.columns or columns
        if columns != self.columns:
            raise BadRecordError(f"{columns} features per frame, expected {self.columns} as before")


class FrameStream(_Stream):
    """A folder with feats.scp: a row per frame."""

    def __init__(
        self, options: StreamOptions, paths: PathMap, allow_pipes: bool, files: ExitStack
    ) -> None:
        super().__init__(options.directory / "feats.scp", paths, allow_pipes, files)
        self._order = options.delta_order
        self._deltas = Deltas(options.delta_order)
        self._features = np.empty((0, 0), np.float32)
        lengths = options.directory / "utt2num_frames"
        self._lengths = files.enter_context(Table(lengths)) if lengths.is_file() else None
        self._normalisations = (
            Normalisations(options, paths, allow_pipes, files) if options.normalises else None
        )

    @property
    def width(self) -> int:
        """Columns with deltas."""
        return self.columns * (self._order + 1)

    def frames(self, line: Line) -> int:
        """Frames of the utterance: utt2num_frames spares opening its archive."""
        said = self._said(line.key) if self.columns else None
        return self._rows(self._scp.entry(line)) if said is None else said

    def read(self, utterance: str, speaker: str, frames: int, out: NDArray[np.float32]) -> None:
        """Fills `out` (whole blocks, width) with the first `frames` frames."""
        entry = self._scp.entry_of(utterance)
        normalise = None
        if self._normalisations is not None:
            normalise = self._normalisations.of(speaker, self.columns).apply
        self._scp.reader.read_into(entry, self._room, normalise)
        self._check_frames(entry, frames)
        check_finite(utterance, self._features, self._directory)
        self._deltas.write(out)

    def _room(self, rows: int, columns: int) -> NDArray[np.float32]:
        self._check(columns)
        self._features = self._deltas.features(rows, columns)
        return self._features

    def _check_frames(self, entry: Entry, wanted: int) -> None:
        frames = len(self._features)
        said = self._said(entry.key)
        if said is not None and said != frames:
            path = self._directory / "utt2num_frames"
            raise fault(entry, f"{frames} frames, but {path} says {said}")
        if frames < wanted:
            raise fault(entry, f"{frames} frames, expected {wanted}")

    def _said(self, utterance: str) -> int | None:
        # What utt2num_frames says.
        line = self._lengths.find(utterance) if self._lengths is not None else None
        if line is None:
            return None
        if not (line.value.isascii() and line.value.isdecimal()):
            raise UserError(
                f"{self._directory / 'utt2num_frames'}:{line.number + 1}: {line.value!r}, "
                "expected a number of frames"
            )
        return int(line.value)


class IvectorStream(_Stream):
    """A folder with ivector_online.scp: a row every `ivector_period` frames."""

    def __init__(
        self, options: StreamOptions, paths: PathMap, allow_pipes: bool, files: ExitStack
    ) -> None:
        super().__init__(options.directory / "ivector_online.scp", paths, allow_pipes, files)
        path = options.directory / "ivector_period"
        try:
            text = path.read_text().strip()
        except OSError as error:
            raise UserError(f"{path}: cannot read it ({error.strerror})") from None
        if not (text.isascii() and text.isdecimal() and int(text)):
            raise UserError(f"{path}: {text!r}, expected a number of frames")
        self._period = int(text)

    @property
    def width(self) -> int:
        """Columns."""
        return self.columns

    def fits(self, line: Line, frames: int) -> bool:
        """Whether the i-vectors are about as long as the features."""
        rows = self._rows(self._scp.entry(line))
        return rows > 0 and abs(rows * self._period - frames) <= _IVECTOR_TOLERANCE

    def read(self, utterance: str, speaker: str, frames: int, out: NDArray[np.float32]) -> None:
        """Fills `out` (T, D): row t // period for frame t, and the last row past the end."""
        entry = self._scp.entry_of(utterance)
        matrix = self._scp.reader.read(entry)
        if not len(matrix):
            raise fault(entry, "no i-vectors")
        try:
            self._check(matrix.shape[1])
        except BadRecordError as error:
            raise fault(entry, error) from None
        check_finite(utterance, matrix, self._directory)
        whole = min(len(out) // self._period, len(matrix))
        blocks = out[: whole * self._period].reshape(whole, self._period, out.shape[1])
        blocks[:] = matrix[:whole, None]
        out[whole * self._period :] = matrix[min(whole, len(matrix) - 1)]
