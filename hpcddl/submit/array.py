"""Which tasks an array of jobs has, in Slurm's words."""

from __future__ import annotations

import re

from hpcddl.common.errors import UserError


def tasks_of(text: str, count: int) -> list[int]:
    """The tasks, ascending, of `--array TEXT`, such as 0-3,7 or 0-9%2 (at most two at a time).

    Raises:
        UserError: not of that form, or not all below `count`.
    """
    found: list[int] = []
    if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*(%[1-9]\d*)?", text):
        for part in text.partition("%")[0].split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    if not found or max(found) >= count:
        raise UserError(f"--array {text}: must be such as 0-3,7 or 0-9%2, up to {count - 1}")
    return sorted(set(found))
