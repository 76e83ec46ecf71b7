"""Maps the paths of a corpus that has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcddl.common.errors import UserError


@dataclass(frozen=True)
class PathMap:
    """Prefix replacements for the absolute paths of a corpus that has moved."""

    pairs: tuple[tuple[str, str], ...] = ()
    near: Path | None = None  # where to look for what to suggest

    @classmethod
    def parse(cls, words: Sequence[str], near: Path) -> PathMap:
        """From `OLD=NEW` words.

        Raises:
            UserError: any other.
        """
        pairs = []
        for word in words:
            old, equals, new = word.partition("=")
            if not (old and equals and new):
                raise UserError(f"--map {word}: expected OLD=NEW, two path prefixes")
            pairs.append((old.rstrip("/"), new.rstrip("/")))
        return cls(tuple(pairs), near)

    def apply(self, path: str) -> str:
        """`path` with the first prefix that fits replaced, by whole folders only."""
        for old, new in self.pairs:
            if path == old or path.startswith(old + "/"):
                return new + path[len(old) :]
        return path

    def advice(self, path: str) -> str:
        """Suggests for a missing file the mapping that would find it, if there is one."""
        parts = Path(path).parts
        if self.near is not None:
            near = self.near.resolve()
            # The longest tail first: the prefix that remains then serves all files of the corpus.
            for count in range(1, len(parts)):
                for ancestor in (near, *near.parents):
                    if ancestor.joinpath(*parts[count:]).is_file():
                        return f"; it is found with --map {Path(*parts[:count])}={ancestor}"
        return "; where the corpus has moved, give --map OLD=NEW for the prefix of its paths"
