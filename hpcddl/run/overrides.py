"""Overrides, `dotted.key=value`: a word stands for the text behind its first `=`."""

import json
from re import fullmatch
from typing import Any

from hpcddl.common.errors import UserError
from hpcddl.common.yaml_file import read_yaml, shown

_YAML = ("[", "{", '"', "'")  # what a value that is read as YAML begins with
_NULL = ("null", "Null", "NULL", "~")
_UNQUOTED = r"true|false|[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"


def apply_override(values: dict[str, Any], override: str) -> dict[str, Any]:
    """Returns a recipe's values with those of an override.

    The value is text as it stands, `#`, `:` and blanks included, unless it begins with a bracket or
    a quote: then it is YAML. `null` and `~` are None. The field that it is for converts the text.

    Raises:
        UserError: not `dotted.key=value`, a list or mapping that is not YAML, or the key is inside
            of something that is not a section.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(f"override {shown(repr(override))}: must be dotted.key=value")
    try:
        value = read_yaml(text) if text.startswith(_YAML) else None if text in _NULL else text
    except ValueError as error:
        raise UserError(f"override {shown(repr(override))}: the value is {error}") from None
    return _put(values, parts, value, override)


def word_of(key: str, value: Any) -> str:
    """Writes the override that gives `key` a value, as `apply_override` reads it."""
    if isinstance(value, str) and not value.startswith(_YAML) and value not in _NULL:
        return f"{key}={value}"
    return f"{key}={_flow(value)}"


def _put(values: dict[str, Any], parts: list[str], value: Any, override: str) -> dict[str, Any]:
    head, *rest = parts
    if not rest:
        return {**values, head: value}
    section = values.get(head)
    if section is None:
        section = {}
    if isinstance(section, str):
        section = {"name": section}
    if not isinstance(section, dict):
        raise UserError(
            f"override {shown(repr(override))}: {shown(repr(head))} holds a value, not a section"
        )
    below = _put(section, rest, value, override)
    if rest == ["name"] and section.get("name") != value:
        below = {"name": value}  # the options of another choice do not carry over
    return {**values, head: below}


def _flow(value: Any) -> str:
    """Writes a value as JSON, texts that look like JSON's numbers and truths without quotes."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_quoted(key)}: {_flow(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str):
        return value if fullmatch(_UNQUOTED, value) else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    """Writes a text in quotes; what YAML does not take as it is becomes an escape."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
