"""Keeps a user's own code with the run that needs it, and notices when it has changed.

RUN/source/DIGEST/ holds a file that the recipe names and the neighbours that it imports;
config.yaml names it there. RUN/source/modules.json says of each module that the recipe names which
file it was, the file's SHA-256 and the version of its distribution.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from hpcddl.common import references
from hpcddl.common.errors import UserError, warn
from hpcddl.common.files import sha256, write_whole

FOLDER = "source"
MODULES = "modules.json"


def keep(values: dict[str, Any], run: Path) -> dict[str, Any]:
    """Copies the files that a config names into `run`; returns the config that names them there."""
    names = {}
    for reference in references.files_in(values):
        source = references.source_of(reference)
        for file in source.files:
            target = run / FOLDER / source.digest / file
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole(target, (source.folder / file).read_bytes())
        names[reference] = f"{FOLDER}/{_by_content(reference)}"
    modules = _modules(values)
    if modules:
        (run / FOLDER).mkdir(exist_ok=True)
        write_whole(run / FOLDER / MODULES, json.dumps(modules, indent=1).encode())
    kept: dict[str, Any] = references.replaced(values, names)
    return kept


def canonical(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a config's values with each file of a user's own named by what is in it."""
    named: dict[str, Any] = references.replaced(
        values, {one: _by_content(one) for one in references.files_in(values)}
    )
    return named


def check_unchanged(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Refuses to go on with a file of the user's own that is not as the run was begun with.

    Raises:
        UserError: names the file.
    """
    for was, new in zip(references.files_in(before), references.files_in(now), strict=False):
        same_names = Path(was).name == Path(new).name
        if same_names and _by_content(was) != _by_content(new):
            file, neighbours = new.rpartition(":")[0], references.source_of(new).files[1:]
            beside = f", or {' or '.join(neighbours)} beside it," if neighbours else ""
            raise UserError(
                f"--resume: {file}{beside} has changed since the run began; must be as kept in "
                f"{run / FOLDER}; fix: name that one in the recipe, or give another --out"
            )


def warn_of_changes(values: dict[str, Any], run: Path) -> None:
    """Says in a line each which modules are no longer those that the run was begun with."""
    try:
        before = json.loads((run / FOLDER / MODULES).read_text())
    except (OSError, ValueError):
        return
    for name, now in _modules(values).items():
        was = before.get(name)
        if was is None or was["sha256"] == now["sha256"]:
            continue
        versions = f" (version {was['version']}, now {now['version']})"
        shown = versions if was["version"] != now["version"] else ""
        warn(f"module {name} has changed since the run began{shown}: {now['file']}")


def _by_content(reference: str) -> str:
    file, _, name = reference.rpartition(":")
    return f"{references.source_of(reference).digest}/{Path(file).name}:{name}"


def _modules(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    references_to_modules = references.modules_in(values)
    distributions = metadata.packages_distributions() if references_to_modules else {}
    for reference in references_to_modules:
        name = reference.partition(":")[0]
        file = getattr(sys.modules.get(name), "__file__", None)
        owners = distributions.get(name.partition(".")[0], [])
        found[name] = {
            "file": file,
            "sha256": sha256(Path(file)) if file else None,
            "version": metadata.version(owners[0]) if owners else None,
        }
    return found
