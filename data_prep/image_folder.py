"""The images of a folder laid out as ImageNet's: ROOT/train/CLASS/FILE and ROOT/val/CLASS/FILE."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.image_file import SUFFIXES
from hpcddl.common.errors import UserError

_FOLDERS = {"train": "train", "heldout": "val"}


@dataclass(frozen=True)
class Listing:
    """The images of one split in order of class and name: paths below ROOT, and classes (N,)."""

    paths: list[str]
    labels: NDArray[np.int32]

    def without(self, broken: NDArray[np.bool_]) -> Listing:
        """Those that are not broken."""
        paths = [path for path, bad in zip(self.paths, broken.tolist(), strict=True) if not bad]
        return Listing(paths, self.labels[~broken])


def list_images(root: Path) -> tuple[list[str], dict[str, Listing]]:
    """Lists the classes (the sorted folders of ROOT/train) and each split's images.

    Raises UserError naming what is missing, or in the way.
    """
    classes, _ = _entries(root / "train")
    if not classes:
        raise UserError(f"{root / 'train'}: no folders; must be one folder per class")
    return classes, {split: _listing(root, folder, classes) for split, folder in _FOLDERS.items()}


def _listing(root: Path, folder: str, classes: list[str]) -> Listing:
    found, files = _entries(root / folder)
    if files:
        raise UserError(
            f"{root / folder / files[0]}: a file among the classes; must be one folder per class"
        )
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise UserError(f"{root / folder / unknown[0]}: a class that {root / 'train'} lacks")
    paths: list[str] = []
    labels: list[NDArray[np.int32]] = []
    for number, name in enumerate(classes):
        if name not in found:
            continue
        below, files = _entries(root / folder / name)
        strange = [*below, *(f for f in files if not f.lower().endswith(SUFFIXES))]
        if strange:
            raise UserError(
                f"{root / folder / name / strange[0]}: must be files *{' *'.join(SUFFIXES)}"
            )
        if not files:
            raise UserError(f"{root / folder / name}: holds no images")
        paths += [f"{folder}/{name}/{file}" for file in files]
        labels.append(np.full(len(files), number, np.int32))
    return Listing(paths, np.concatenate([np.empty(0, np.int32), *labels]))


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, each sorted; not the hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    return sorted(folders), sorted(files)
