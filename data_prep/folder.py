"""Output folders that are either complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcddl.common.errors import UserError
from hpcddl.common.files import sync_folder


@contextmanager
def new_folder(out: Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """Makes a hidden folder beside `out`; renames it to `out` at the end, removes it on errors.

    Raises UserError where `out` exists, unless `overwrite` and it holds the file `marker`: what is
    replaced must be an earlier output, not any other folder.
    """
    out = Path(os.path.abspath(out))
    if os.path.lexists(out):
        if not overwrite:
            raise UserError(f"{out}: exists already; must be a new folder; fix: --overwrite")
        if not (out / marker).is_file():
            raise UserError(
                f"{out}: holds no {marker}, so it is no earlier output: not overwritten"
            )
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise UserError(f"{out}: cannot make the folder ({error.strerror})") from None
    try:
        yield partial
        if out.exists():
            old = out.with_name(f".{out.name}.old-{os.getpid()}")
            os.rename(out, old)
            os.rename(partial, out)
            shutil.rmtree(old)
        else:
            os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(out.parent)
