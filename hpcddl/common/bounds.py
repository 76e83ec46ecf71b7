"""What the numbers among a command's options are bound by."""

from argparse import Namespace
from collections.abc import Mapping
from math import inf

from hpcddl.common.errors import UserError


def check_least(arguments: Namespace, least: Mapping[str, float]) -> None:
    """Checks each option that is given against its least value, a list's entries one by one.

    Raises:
        UserError: one is smaller, infinite or NaN.
    """
    for name, low in least.items():
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not low <= value < inf:
                raise UserError(f"--{_option(name)}: {value:g}, allowed: at least {low:g}")


def check_above_zero(arguments: Namespace, *names: str) -> None:
    """Raises UserError where one of the options is given and not a number above 0."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not 0 < value < inf:
            raise UserError(f"--{_option(name)}: {value:g}, allowed: above 0")


def _option(name: str) -> str:
    return name.replace("_", "-")
