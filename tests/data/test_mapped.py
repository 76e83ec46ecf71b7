"""Mapped bytes: right, read-only, without an open file, gone when nobody reads them any more."""

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hpcddl.data import mapped
from hpcddl.data.mapped import map_bytes


@pytest.fixture
def content(tmp_path: Path) -> NDArray[np.uint8]:
    """Of a file that is no whole number of pages."""
    data = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    (tmp_path / "file").write_bytes(data.tobytes())
    return data


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def maps(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 100_000), (5001, 64_000), (4096, 1), (99_999, 1), (8192, 0)]
)
@pytest.mark.parametrize("mappable", [True, False])
def test_the_bytes_are_those_of_the_file(
    offset: int,
    size: int,
    mappable: bool,
    content: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the file system cannot map: they are read."""
    if not mappable:
        monkeypatch.setattr(mapped, "_LIBC", Unmappable())
    before = open_files()
    array = map_bytes(tmp_path / "file", offset, size)
    assert open_files() == before
    assert np.array_equal(array, content[offset : offset + size])
    assert not array.flags.writeable
    assert maps(tmp_path / "file") == (mappable and size > 0)


class Unmappable:
    """A file system that answers as FUSE with direct_io does."""

    def mmap(self, *words: object) -> int | None:
        mapped.ctypes.set_errno(errno.ENODEV)
        return mapped._FAILED


def test_a_map_lives_as_long_as_any_part_of_it(content: NDArray[np.uint8], tmp_path: Path) -> None:
    array = map_bytes(tmp_path / "file", 0, 100_000)
    part = array[80_000:].view(np.uint16).reshape(-1, 100)
    del array
    gc.collect()
    assert np.array_equal(part.ravel(), content[80_000:].view(np.uint16))
    del part
    gc.collect()
    assert maps(tmp_path / "file") == 0


def test_a_file_that_is_too_short_is_refused(content: NDArray[np.uint8], tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(OSError, match="ends before byte 100001"):
        map_bytes(tmp_path / "file", 1, 100_000)
    with pytest.raises(FileNotFoundError):
        map_bytes(tmp_path / "none", 0, 1)
    assert open_files() == before
