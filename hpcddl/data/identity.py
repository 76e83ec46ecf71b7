"""Tells data sets apart by their samples, wherever they lie."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.data.manifest import read_manifest

ANY = "any"
"""A recipe's word for: whatever set lies at the path."""
_FIX = "give the path of its own set"
Fingerprint = Annotated[str, Field(pattern=rf"^([0-9a-f]{{32}}|{ANY})$")] | None


def check_fingerprint(path: str, wanted: Fingerprint, fix: str = _FIX) -> None:
    """Refuses the shard set in the folder `path` if its fingerprint is not `wanted`.

    Args:
        fix: what the user may do about it.

    Raises:
        UserError: another set, or none.
    """
    if wanted in (None, ANY):
        return
    found = read_manifest(path).fingerprint
    if found != wanted:
        raise UserError(
            f"data {path}: fingerprint {found}, must be {wanted}: these are not the samples that "
            f"the run was trained on; fix: {fix}"
        )


def identified(data: Choice, fix: str = _FIX) -> Choice:
    """Adds to a data set's options the fingerprint of what lies at its path.

    Raises:
        UserError: another set than the options name, or none.
    """
    path = data.options["path"]
    check_fingerprint(path, data.options["fingerprint"], fix)
    return with_fingerprint(data, read_manifest(path).fingerprint)


def with_fingerprint(data: Choice, fingerprint: Fingerprint) -> Choice:
    """Replaces the fingerprint in a data set's options."""
    return Choice(data.name, {**data.options, "fingerprint": fingerprint})
