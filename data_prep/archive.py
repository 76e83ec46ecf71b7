"""Reads downloaded files: in a folder, a tar or a zip archive, compressed or not.

Archives are read in place: nothing in them can name a path to write to.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

from hpcddl.common.errors import UserError
from hpcddl.common.files import sha256

_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns what a damaged file or archive makes Python's readers raise into a UserError."""
    try:
        yield
    except _DAMAGE as error:
        # The reason alone, where the system gives one: its message would name the file again.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read, or is cut short ({reason})") from None


def decompressed(file: io.BufferedReader) -> io.BufferedReader:
    """Decompresses a .gz or .bz2 file, recognised by its first bytes; returns others unchanged."""
    head = file.peek(3)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=file)))
    if head.startswith(b"BZh"):
        return io.BufferedReader(cast(Any, bz2.BZ2File(file)))
    return file


@contextmanager
def open_file(path: Path) -> Iterator[io.BufferedReader]:
    """Opens a file, decompressed; errors while it is read become a UserError."""
    with reading(path), open(path, "rb") as file:
        yield decompressed(file)


class Archive:
    """The files of a folder, or of a tar or zip archive, by base name.

    Raises UserError for what is none of these, or is damaged, or names two files alike.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._close: Callable[[], None] = lambda: None
        self._members: dict[str, Callable[[], Any]] = {}
        self._sizes: dict[str, int] = {}
        with reading(path):
            if path.is_dir():
                for entry in path.iterdir():
                    if entry.is_file():
                        self._add(
                            entry.name,
                            entry.stat().st_size,
                            partial(open, entry, "rb", buffering=0),
                        )
            elif zipfile.is_zipfile(path):
                self._add_zip(zipfile.ZipFile(path))
            elif tarfile.is_tarfile(path):
                self._add_tar(tarfile.open(path))  # noqa: SIM115
            else:
                raise UserError(f"{path}: must be a folder, a tar archive or a zip archive")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _add_zip(self, archive: zipfile.ZipFile) -> None:
        self._close = archive.close
        for member in archive.infolist():
            if not member.is_dir():
                self._add(member.filename, member.file_size, partial(archive.open, member))

    def _add_tar(self, archive: tarfile.TarFile) -> None:
        self._close = archive.close
        for member in archive:
            if member.isfile():
                self._add(member.name, member.size, partial(archive.extractfile, member))

    def _add(self, name: str, size: int, opener: Callable[[], Any]) -> None:
        base = PurePosixPath(name).name
        if base in self._members:
            raise UserError(f"{self.path}: holds two files named {base}")
        self._members[base] = opener
        self._sizes[base] = size

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def first(self, names: Iterable[str]) -> str:
        """The first of `names` that is there.

        Raises:
            UserError: none is.
        """
        names = list(names)
        found = next(filter(self.__contains__, names), None)
        if found is None:
            raise UserError(f"{self.path}: holds no {' or '.join(names)}")
        return found

    def size(self, name: str) -> int:
        """Says how many bytes a file has."""
        return self._sizes[self.first([name])]

    def where(self, name: str) -> str:
        """Names a file in an error."""
        return str(self.path / name)

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedReader]:
        """Opens the file `name`, as `open_file` does."""
        self.first([name])
        with reading(self.where(name)), self._members[name]() as file:
            yield decompressed(io.BufferedReader(file))

    def checksums(self, names: Iterable[str]) -> dict[str, str]:
        """Path -> SHA-256 of the files `names`, or of the archive they are in."""
        paths = [self.path / name for name in names] if self.path.is_dir() else [self.path]
        with reading(self.path):
            return {str(path): sha256(path) for path in paths}
