"""The names beside a shard set's numbers: of classes, and of what samples were cut from."""

from __future__ import annotations

from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.data.manifest import Manifest, TextEntry


def class_names(folder: Path, manifest: Manifest) -> list[str]:
    """(C,) the classes' names, or their numbers where they have none."""
    if manifest.names is None:
        return [str(number) for number in range(manifest.classes)]
    return read_lines(folder, manifest.names)


def read_lines(folder: Path, entry: TextEntry) -> list[str]:
    """The lines of a text file of the set.

    Raises:
        UserError: the file is missing, or has another number of lines than was packed.
    """
    path = folder / entry.file
    try:
        # Not splitlines: words of a text may hold what Python takes for the end of a line.
        lines = path.read_bytes().decode().split("\n")[:-1]
    except OSError as error:
        raise UserError(f"{path}: named in the manifest, but {error.strerror}") from None
    if len(lines) != entry.lines:
        raise UserError(f"{path}: {len(lines)} lines, expected {entry.lines}: cut or replaced")
    return lines
