"""What a check concludes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fault"]
ORDER: tuple[Verdict, ...] = ("ok", "warn", "fault")


@dataclass(frozen=True)
class Finding:
    """A verdict with the fact that led to it and, unless all is well, one line that mends it.

    A fault: training does not start, breaks, or is not the job that was asked for. A warning: it
    trains, but slower or more fragile than this machine allows.
    """

    verdict: Verdict
    found: str
    mend: str = ""


def ok(found: str) -> Finding:
    """Nothing to mend."""
    return Finding("ok", found)


def counted(number: int, noun: str) -> str:
    """1 rank, 2 ranks."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def worst(findings: Iterable[Finding]) -> Finding:
    """The first of the gravest."""
    return max(findings, key=lambda one: ORDER.index(one.verdict))
