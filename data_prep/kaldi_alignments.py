"""Kaldi's alignments, `ali.1.gz ...`: a transition-id per frame, streamed by utterance."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi_matrix import BadRecordError, read_exactly
from hpcddl.errors import UserError

# A byte with the size of the integer precedes each one.
_ELEMENT = np.dtype([("size", "u1"), ("value", "<i4")])
_MAX_FRAMES = 1 << 28


def alignment_files(directory: Path) -> list[Path]:
    """`ali.1.gz ... ali.N.gz` (or unzipped) in job order.

    Raises UserError unless all N of `num_jobs`, or of the numbers found, are there: a missing job's
    utterances would look as if they had never been aligned.
    """
    found: dict[int, Path] = {}
    for path in sorted(directory.glob("ali.*")):
        if match := re.fullmatch(r"ali\.(\d+)(\.gz)?", path.name):
            found.setdefault(int(match[1]), path)
    if not found:
        raise UserError(f"{directory}: no alignments, expected ali.1.gz ...")
    jobs_file = directory / "num_jobs"
    jobs = max(found)
    if jobs_file.is_file():
        text = jobs_file.read_text().strip()
        if not text.isdigit() or not int(text):
            raise UserError(f"{jobs_file}: {text!r}, expected a number of jobs")
        jobs = int(text)
    if missing := sorted(set(range(1, jobs + 1)) - set(found)):
        raise UserError(f"{directory}: ali.{missing[0]}.gz is missing, expected all of {jobs} jobs")
    return [found[job] for job in range(1, jobs + 1)]


def read_alignments(path: Path) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Utterances and their transition-ids, (T,), in file order; zipped or not, binary or text.

    Python unzips: a missing file behind a `gunzip |` would be an empty list without an error.

    Raises UserError naming the utterance, file and (unzipped) offset of a cut or garbled record.
    """
    key = ""
    offset = 0
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            plain: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
            file: io.BufferedReader = io.BufferedReader(plain, 1 << 20)
            while True:
                offset, key = file.tell(), ""
                if not (key := _read_key(file)):
                    return
                yield key, _read_ids(file)
    except (BadRecordError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"{key}: " if key else ""
        raise UserError(f"{where}{path}:{offset}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the alignments ({error.strerror})") from None


def _read_key(file: io.BufferedReader) -> str:
    # Empty at the end of the file.
    key = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        key += byte
        if byte == b"\n" or len(key) > 1024:
            raise BadRecordError(f"garbled: no utterance begins here (found {bytes(key[:20])!r})")
    if not byte and key:
        raise BadRecordError("cut: the file ends inside an utterance's name")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise BadRecordError(f"garbled: {bytes(key[:20])!r} is no utterance's name") from None


def _read_ids(file: io.BufferedReader) -> NDArray[np.int32]:
    if file.peek(1)[:1] != b"\0":
        line = file.readline()
        if not line.endswith(b"\n"):
            raise BadRecordError("cut: the file ends inside a line of text")
        try:
            return np.array(line.decode("ascii").split(), np.int32)
        except (ValueError, OverflowError):
            raise BadRecordError("garbled: text that is no list of transition-ids") from None
    mark, size, count = struct.unpack("<2sbi", read_exactly(file, 7))
    if mark != b"\0B" or size != 4 or not 0 <= count <= _MAX_FRAMES:
        raise BadRecordError("garbled: no vector of 32-bit integers begins here")
    elements = np.frombuffer(read_exactly(file, _ELEMENT.itemsize * count), _ELEMENT)
    if not (elements["size"] == 4).all():
        raise BadRecordError("garbled: an element of the vector has another size than 4 bytes")
    return elements["value"]
