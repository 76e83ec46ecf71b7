"""Statistics for CMVN as Kaldi stores them: one matrix per speaker, or one for all."""

from __future__ import annotations

from contextlib import ExitStack, closing

from data_prep.kaldi.archive import ZIP_ERRORS, open_archive
from data_prep.kaldi.features import Cmvn, cmvn
from data_prep.kaldi.matrix import BadRecordError, read_matrix
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Scp
from data_prep.kaldi.stream_options import StreamOptions
from hpcddl.common.errors import UserError

_CACHED = 4096  # speakers


class Normalisations:
    """The CMVN of each speaker of a feature folder, read when first asked for.

    Files opened are closed with `files`. All methods raise UserError naming file and speaker.
    """

    def __init__(
        self, options: StreamOptions, paths: PathMap, allow_pipes: bool, files: ExitStack
    ) -> None:
        self._options = options.cmvn_options
        self._path = options.stats or options.directory / "cmvn.scp"
        self._scp: Scp | None = None
        self._all: Cmvn | None = None
        self._of: dict[str, Cmvn] = {}
        if not self._path.is_file():
            raise UserError(f"{self._path}: no such file; allowed without it: cmvn=none, --no-cmvn")
        if options.stats is not None:
            self._all = self._read_global()
        else:
            self._scp = files.enter_context(closing(Scp(self._path, paths, allow_pipes)))

    def of(self, speaker: str, dimension: int) -> Cmvn:
        """The speaker's CMVN of `dimension` features."""
        found = self._all or self._of.get(speaker) or self._read(speaker)
        if len(found.offset) != dimension:
            whose = "" if self._all else f" {speaker}:"
            raise UserError(
                f"{self._path}:{whose} statistics of {len(found.offset)} features, "
                f"expected {dimension}"
            )
        return found

    def _read(self, speaker: str) -> Cmvn:
        assert self._scp is not None
        line = self._scp.find(speaker)
        if line is None:
            raise UserError(f"{self._path}: no statistics for speaker {speaker}")
        stats = self._scp.reader.read(self._scp.entry(line))
        try:
            made = cmvn(stats, self._options.norm_vars, self._options.skip_dims)
        except ValueError as error:
            raise UserError(f"{self._path}: {speaker}: {error}") from None
        if len(self._of) == _CACHED:
            self._of.clear()
        self._of[speaker] = made
        return made

    def _read_global(self) -> Cmvn:
        try:
            with open_archive(str(self._path)) as file:
                stats = read_matrix(file)
            return cmvn(stats, self._options.norm_vars, self._options.skip_dims)
        except OSError as error:
            raise UserError(f"{self._path}: cannot read it ({error.strerror})") from None
        except (BadRecordError, ValueError, *ZIP_ERRORS) as error:
            raise UserError(f"{self._path}: {error}") from None
