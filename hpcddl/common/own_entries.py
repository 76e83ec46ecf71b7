"""Makes a user's function or class an entry of a table, with keyword-only options."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator

_NUMBER = re.compile(r"[-+]?[0-9]+")


def read_text(value: Any) -> Any:
    """Reads a value without a declared type: a text that looks like a number or a truth is one."""
    if isinstance(value, dict):
        return {key: read_text(one) for key, one in value.items()}
    if isinstance(value, list):
        return [read_text(one) for one in value]
    if not isinstance(value, str):
        return value
    if value in ("true", "false"):
        return value == "true"
    if _NUMBER.fullmatch(value):
        return int(value)
    try:
        return float(value)
    except ValueError:
        return value


Untyped = Annotated[Any, BeforeValidator(read_text)]


def with_given(function: Callable[..., Any], given: Sequence[str]) -> Callable[..., Any]:
    """Makes an entry that is called with the arguments `given` first, which it need not take.

    Whatever of them `function` has no parameter for is left out. All its other parameters are
    options.
    """
    parameters = parameters_of(function)
    taken = [name for name in given if name in parameters]

    def entry(*arguments: Any, **options: Any) -> Any:
        known = dict(zip(given, arguments, strict=True))
        return function(**{name: known[name] for name in taken}, **options)

    return declared(entry, function, [name for name in parameters if name not in given])


def with_first(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Makes an entry whose first `count` arguments are handed on; the rest are its options."""

    def entry(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return declared(entry, function, list(parameters_of(function))[count:])


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Lists a function's parameters by name, in order; any options of one that does not say."""
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:  # of a function in C, which does not say
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}


def declared(
    entry: Callable[..., Any], function: Callable[..., Any], options: Sequence[str]
) -> Callable[..., Any]:
    """Gives `entry` those parameters of `function` as its keyword-only options."""
    parameters = parameters_of(function)
    try:
        body = function.__init__ if inspect.isclass(function) else function
        hints = get_type_hints(body, include_extras=True)
    except Exception:  # names that exist only for a type checker
        hints = {}
    kept, annotations = [], {}
    for name in options:
        parameter = parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is not parameter.VAR_KEYWORD:
            parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)
            annotations[name] = _type(hints.get(name, Any), parameter.default)
        kept.append(parameter)
    entry.__name__ = getattr(function, "__name__", "entry")
    entry.__doc__ = function.__doc__
    entry.__annotations__ = annotations
    entry.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return entry


def _type(hint: Any, default: Any) -> Any:
    """The hint where values can be checked by it; else any value, read by what it looks like."""
    if not _is_plain(hint):
        return Untyped
    return hint | None if default is None and hint is not type(None) else hint


def _is_plain(hint: Any) -> bool:
    if hint in (int, float, bool, str, type(None)):
        return True
    origin = get_origin(hint)
    if origin is Literal:
        return True
    if origin in (list, tuple, Union, types.UnionType):
        return all(_is_plain(one) or one is Ellipsis for one in get_args(hint))
    return origin is Annotated and _is_plain(get_args(hint)[0])
