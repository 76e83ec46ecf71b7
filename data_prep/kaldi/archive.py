"""Opens what an scp entry names: a file, zipped or not, or the output of a command."""

from __future__ import annotations

import gzip
import io
import subprocess
import zlib
from typing import BinaryIO, cast

from data_prep.kaldi.matrix import BadRecordError

_BUFFER_BYTES = 1 << 16
_STDERR_SHOWN = 300  # characters

# What reading a zipped file raises where it is cut or garbled.
ZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def open_archive(path: str) -> BinaryIO:
    """Opens a file for reading from any offset; unzips it if it begins as a gzip file.

    Offsets count unzipped bytes; a smaller one than the last is slow in a zipped file. Raises
    OSError.
    """
    file = open(path, "rb", buffering=_BUFFER_BYTES)  # noqa: SIM115
    if file.read(2) == b"\x1f\x8b":
        file.seek(0)
        return cast(BinaryIO, io.BufferedReader(_Unzipped(file), _BUFFER_BYTES))
    file.seek(0)
    return file


def is_zipped(file: BinaryIO) -> bool:
    """Whether open_archive unzips the file."""
    return isinstance(getattr(file, "raw", None), _Unzipped)


class _Unzipped(gzip.GzipFile):
    """Closes the zipped file with itself."""

    def __init__(self, zipped: BinaryIO) -> None:
        super().__init__(fileobj=zipped, mode="rb")
        self._zipped = zipped

    def close(self) -> None:
        """Closes both."""
        super().close()
        self._zipped.close()


def command_output(command: str) -> BinaryIO:
    """Reads all output of a shell command: if one stopped early, SIGPIPE would end it.

    Raises BadRecordError, with the end of what it said, unless it exits with status 0.
    """
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-_STDERR_SHOWN:]
        raise BadRecordError(f"{command!r} ended with status {done.returncode}: {said}")
    return io.BytesIO(done.stdout)
