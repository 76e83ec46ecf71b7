"""Several feature folders pasted frame by frame, as Kaldi's paste-feats does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.features import whole_blocks
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scratch import Scratch
from data_prep.kaldi.stream import FrameStream, IvectorStream
from data_prep.kaldi.stream_options import StreamOptions, is_ivectors
from hpcddl.common.errors import UserError


class Found(NamedTuple):
    """The frames of an utterance in its shortest and in its longest stream."""

    shortest: int
    longest: int


class Streams:
    """Feature folders in paste order.

    All methods raise UserError naming what is missing, cut or garbled.
    """

    def __init__(
        self,
        options: Sequence[StreamOptions],
        paths: PathMap,
        *,
        length_tolerance: int = 2,
        allow_pipes: bool = False,
    ) -> None:
        self._tolerance = length_tolerance
        self._directories = [one.directory for one in options]
        self._streams: list[FrameStream | IvectorStream] = []
        self._buffer = Scratch(np.float32)
        self._files = ExitStack()
        if all(is_ivectors(directory) for directory in self._directories):
            raise UserError(
                "only i-vectors to paste; there must be at least one folder with feats.scp"
            )
        try:
            for one in options:
                kind = IvectorStream if is_ivectors(one.directory) else FrameStream
                self._streams.append(kind(one, paths, allow_pipes, self._files))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._streams)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all files."""
        self._files.close()

    @property
    def dimension(self) -> int:
        """Columns of all streams together, known once an utterance was found or read."""
        return sum(stream.width for stream in self._streams)

    def survey(self, utterance: str) -> Found | str:
        """How long the utterance is, without reading its values; or why it cannot be used."""
        lines = []
        for stream, directory in zip(self._streams, self._directories, strict=True):
            if (line := stream.find(utterance)) is None:
                return f"no features in {directory}"
            lines.append(line)
        pairs = list(zip(self._streams, lines, strict=True))
        frames = [stream.frames(line) for stream, line in pairs if isinstance(stream, FrameStream)]
        shortest, longest = min(frames), max(frames)
        if not shortest:
            return "features without frames"
        if longest - shortest > self._tolerance:
            return "pasted features of different lengths"
        for stream, line in pairs:
            if isinstance(stream, IvectorStream) and not stream.fits(line, shortest):
                return "i-vectors and features of different lengths"
        return Found(shortest, longest)

    def read(self, utterance: str, speaker: str, frames: int) -> NDArray[np.float32]:
        """(frames, dimension) the first frames of an utterance, all finite.

        The array is a buffer that the next call fills again.
        """
        if not all(stream.columns for stream in self._streams):
            for stream in self._streams:
                stream.learn(utterance)
        out = self._buffer.array(whole_blocks(frames), self.dimension)
        begin = 0
        # Values that overflow are found by their not being finite.
        with np.errstate(over="ignore", invalid="ignore"):
            for stream in self._streams:
                end = begin + stream.width
                stream.read(utterance, speaker, frames, out[:, begin:end])
                begin = end
        return out[:frames]
