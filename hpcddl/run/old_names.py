"""Old names of settings: recipes, overrides and runs made before a change are read as ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcddl.common.errors import UserError
from hpcddl.common.yaml_file import shown

_NEW = {"network": "links"}  # a section's old name -> its own


def with_new_names(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Gives sections under an old name their own; `where` they are is for the error.

    Raises:
        UserError: a section under both.
    """
    for old, new in _NEW.items():
        if old in values and new in values:
            raise UserError(
                f"{shown(where)}: {old} must not be given beside {new}, whose old name it is; fix: "
                f"write {new} for {old}"
            )
    return {_NEW.get(key, key): value for key, value in values.items()}


def overrides_with_new_names(overrides: Sequence[str]) -> list[str]:
    """Gives sections in `dotted.key=value` their own names.

    Raises:
        UserError: a section under both.
    """
    parts = [_parts(override) for override in overrides]
    with_new_names(dict.fromkeys(section for section, _ in parts), "overrides")
    return [_NEW.get(section, section) + rest for section, rest in parts]


def _parts(override: str) -> tuple[str, str]:
    """Cuts an override behind the name of its section, or of its key where it is in none."""
    length = len(override.partition("=")[0].partition(".")[0])
    return override[:length], override[length:]
