"""What a check concludes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fault"]
ORDER: tuple[Verdict, ...] = ("ok", "warn", "fault")


@dataclass(frozen=True)
class Finding:
    """A verdict with the fact that led to it and, if something is wrong, one line that fixes it.

    Fault: training does not start, breaks, or is not the job that was asked for. Warning: it
    trains, but is slower or less robust than this machine allows.
    """

    verdict: Verdict
    found: str
    mend: str = ""


def ok(found: str) -> Finding:
    """Makes a finding without a fault."""
    return Finding("ok", found)


def counted(number: int, noun: str) -> str:
    """Writes a number with its noun: 1 rank, 2 ranks."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def worst(findings: Iterable[Finding]) -> Finding:
    """Returns the first of the most serious findings."""
    return max(findings, key=lambda one: ORDER.index(one.verdict))
