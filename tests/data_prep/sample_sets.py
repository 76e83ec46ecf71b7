"""What the tests of several `prep` commands share."""

import subprocess
from pathlib import Path

import h5py
import numpy as np

from hpcddl.data.manifest import read_manifest


def stored(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Every field of a split, through HDF5's own reader."""
    parts: dict[str, list[np.ndarray]] = {}
    for shard in read_manifest(folder).splits[split].shards:
        with h5py.File(folder / shard.file, "r") as file:
            for name in file:
                parts.setdefault(name, []).append(file[name][:])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def names(folder: Path) -> list[str]:
    """The classes' names."""
    return (folder / "names.txt").read_text().splitlines()


def files(folder: Path) -> dict[str, bytes]:
    """Name -> contents of all files."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_refused(
    result: subprocess.CompletedProcess[str], out: Path, *words: object, before: set[Path]
) -> None:
    """One line with all the words, status 2, and nothing beside `out` that was not there before."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("hpcddl: error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert str(word) in result.stderr
    assert set(out.parent.iterdir()) == before
