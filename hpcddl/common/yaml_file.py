"""YAML whose scalars stay the texts that they are; what a text means is for its field to say.

YAML guesses types: `2024` is a number, `no` is false, `1:30` is 90. Here only null (`null`, `~` or
nothing) is no text, and quotes keep even that one.
"""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from hpcddl.common.errors import UserError

MOST_VALUES = 10_000  # of a document, aliases written out
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "str", "seq", "map")}


class _NullOnly:
    """Which plain scalars are no texts, for reading and for writing."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Loader(_NullOnly, yaml.SafeLoader):
    """Knows null and texts."""


class _Dumper(_NullOnly, yaml.SafeDumper):
    """Quotes no text that `_Loader` reads without quotes."""


def read_yaml(text: str) -> Any:
    """Reads a document: None, texts, and lists and dicts of them; keys are texts.

    Raises:
        ValueError: not YAML, a key twice in a mapping, a key or a tag that is no text's, a
            document that contains itself or is too large; the line is part of the message.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The latter two: of an escape beyond Unicode.
        raise ValueError(f"not YAML: {shown(' '.join(str(error).split()), 500)}") from None
    except RecursionError:
        raise ValueError("not YAML: lists and mappings must not be nested so deeply") from None
    return _Values().of(node)


def read_yaml_file(path: Path, what: str) -> Any:
    """Reads a file as `read_yaml` does; the error says `what` kind of file it is.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is refused by `read_yaml`.
    """
    try:
        return read_yaml(path.read_bytes().decode())
    except OSError as error:
        raise UserError(f"{what} {shown(path)}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} {shown(path)}: must be UTF-8 text; byte {error.start} is not"
        ) from None
    except ValueError as error:
        raise UserError(f"{what} {shown(path)}: {error}") from None


def write_yaml(values: Any) -> str:
    """Writes what `read_yaml` reads back, in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def shown(value: Any, most: int = 300) -> str:
    """Returns a value for an error message: on one line, shortened beyond `most` characters."""
    text = str(value) if isinstance(value, str | Path) else repr(value)
    text = text if text.isprintable() and text else repr(text)
    return text if len(text) <= most else f"{text[:most]}..."


class _Values:
    """Turns nodes to values, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self.open: list[yaml.Node] = []  # the nodes that the present one is part of

    def of(self, node: yaml.Node | None) -> Any:
        if node is None:  # an empty document
            return None
        self.count += 1
        if self.count > MOST_VALUES:
            raise ValueError(f"must not hold more than {MOST_VALUES:,} values")
        if node.tag not in _TAGS:
            raise ValueError(f"{_line(node)}: must have no tag; it has {shown(node.tag)}")
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag.endswith(":null") else _text(node)
        if any(node is outer for outer in self.open):
            raise ValueError(f"{_line(node)}: must not contain itself")
        self.open.append(node)
        values = (
            self._mapping(node)
            if isinstance(node, yaml.MappingNode)
            else [self.of(child) for child in node.value]
        )
        self.open.pop()
        return values

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{_line(key)}: a key must be text, not a list or a mapping")
            name = _text(key)
            if name in values:
                raise ValueError(f"{_line(key)}: key {shown(name)} must not be given twice")
            values[name] = self.of(child)
        return values


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    if "\0" in text:
        raise ValueError(f"{_line(node)}: text must not hold a NUL character")
    return text


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
