"""Types of a command's numeric options, for `add_argument`, that say which values are allowed."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from math import inf
from typing import TypeVar

from hpcddl.common.errors import UserError

Number = TypeVar("Number", int, float)


def at_least(low: Number) -> Callable[[str], Number]:
    """Makes the type of finite numbers from `low` on; of whole ones, if `low` is one.

    Raises:
        ArgumentTypeError: when the type is called with another word.
    """
    return _number(type(low), lambda value: low <= value < inf, f"at least {low}")


def between(low: Number, high: Number) -> Callable[[str], Number]:
    """Makes the type of numbers from `low` to `high`, both included; see `at_least`."""
    return _number(type(low), lambda value: low <= value <= high, f"{low} .. {high}")


def above(bound: float, below: float = inf) -> Callable[[str], float]:
    """Makes the type of numbers above `bound` and below `below`, both excluded; see `at_least`."""
    end = "" if below == inf else f" and below {below:g}"
    return _number(float, lambda value: bound < value < below, f"above {bound:g}{end}")


def _number(
    kind: type[Number], allowed: Callable[[Number], bool], what: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            whole = "a whole number, " if kind is int else ""
            raise ArgumentTypeError(f"{text}: must be {whole}{what}")
        return value

    return parse


def check_least(arguments: Namespace, least: Mapping[str, float]) -> None:
    """Checks each option that is given against its least value, a list's entries one by one.

    Raises:
        UserError: one is smaller, infinite or NaN.
    """
    for name, low in least.items():
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not low <= value < inf:
                raise UserError(f"--{_option(name)}: {value:g}: must be at least {low:g}")


def check_above_zero(arguments: Namespace, *names: str) -> None:
    """Raises UserError where one of the options is given and not a number above 0."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not 0 < value < inf:
            raise UserError(f"--{_option(name)}: {value:g}: must be above 0")


def _option(name: str) -> str:
    return name.replace("_", "-")
