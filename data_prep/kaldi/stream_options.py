"""Parses a feature folder and its normalisation from a word of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.kaldi.features import CmvnOptions, with_cmvn_option
from hpcddl.common.errors import UserError

_CMVN = ("speaker", "global", "none")
_MAX_ORDER = 8
_ALLOWED = (
    "cmvn=speaker|global|none, cmvn-stats=FILE, norm-means=true|false, norm-vars=true|false, "
    "skip-dims=N:N..., delta-order=N"
)


@dataclass(frozen=True)
class StreamOptions:
    """Options of a folder: `cmvn` says whose statistics to use; `stats` is the global file."""

    directory: Path
    cmvn: str = "speaker"
    stats: Path | None = None
    cmvn_options: CmvnOptions = field(default_factory=CmvnOptions)
    delta_order: int = 2

    @classmethod
    def parse(cls, word: str, defaults: StreamOptions) -> StreamOptions:
        """From `DIR[,key=value...]`, with `defaults` for all but the directory.

        A folder of online i-vectors takes neither keys nor defaults. Raises UserError naming the
        folder or the key.
        """
        directory, *settings = word.split(",")
        path = Path(directory)
        if not path.is_dir():
            raise UserError(f"{directory}: no such folder")
        if is_ivectors(path):
            if settings:
                raise UserError(f"{word}: i-vectors are pasted as they are; must be without keys")
            return cls(path, cmvn="none", delta_order=0)
        options = replace(defaults, directory=path)
        for setting in settings:
            options = options._with(word, *setting.partition("=")[::2])
        chosen = options.cmvn_options
        if chosen.norm_vars and not chosen.norm_means:
            raise UserError(f"{word}: norm-vars=true needs norm-means=true")
        if options.cmvn == "global" and options.stats is None:
            options = replace(options, stats=path / "global_cmvn.stats")
        return options

    def _with(self, word: str, name: str, value: str) -> StreamOptions:
        if name == "cmvn" and value in _CMVN:
            return replace(self, cmvn=value)
        if name == "cmvn-stats" and value:
            return replace(self, cmvn="global", stats=Path(value))
        if name == "delta-order" and value in map(str, range(_MAX_ORDER + 1)):
            return replace(self, delta_order=int(value))
        try:
            return replace(self, cmvn_options=with_cmvn_option(self.cmvn_options, name, value))
        except ValueError:
            raise UserError(f"{word}: {name}={value}; must be {_ALLOWED}") from None

    @property
    def normalises(self) -> bool:
        """Whether any CMVN is applied."""
        return self.cmvn != "none" and self.cmvn_options.norm_means

    def __str__(self) -> str:
        words = [str(self.directory)]
        if not is_ivectors(self.directory):
            if not self.normalises:
                words.append("cmvn=none")
            else:
                words.append(f"cmvn-stats={self.stats}" if self.stats else "cmvn=speaker")
                words.append(f"norm-vars={str(self.cmvn_options.norm_vars).lower()}")
                if dims := self.cmvn_options.skip_dims:
                    words.append(f"skip-dims={':'.join(map(str, dims))}")
            words.append(f"delta-order={self.delta_order}")
        return ",".join(words)


def is_ivectors(directory: Path) -> bool:
    """Whether the folder holds Kaldi's online i-vectors."""
    return (directory / "ivector_online.scp").is_file()
