"""What a cluster wants to be asked: the `#SBATCH` lines of its file in jobs/sites/."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hpcddl.common.errors import UserError

# A sweep's jobs train.
_GROUPS = {"train": "TRAIN", "sweep": "TRAIN", "prep": "PREP", "report": "REPORT"}


def site_file(name: str, folder: Path) -> Path:
    """A site's file: `folder`/NAME.sh, or any file, named with a slash in it.

    Raises:
        UserError: there is none.
    """
    path = Path(name) if "/" in name else folder / f"{name}.sh"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.sh")))
        raise UserError(f"--site {name}: must be a file (with a / in it) or one of {known}")
    return path.resolve()


def sbatch_options(text: str, kind: str) -> tuple[str, ...]:
    """sbatch's options in a script or a site's file for a job of `kind`, in their order.

    Lines `#SBATCH ...` are for all kinds, `#SBATCH-TRAIN`, `-PREP` and `-REPORT` for one.
    """
    lines = re.findall(r"^#SBATCH(?:-([A-Z]+))?[ \t]+(.+)$", text, re.MULTILINE)
    return tuple(
        word
        for group, options in lines
        if group in ("", _GROUPS[kind])
        for word in shlex.split(options, comments=True)
    )
