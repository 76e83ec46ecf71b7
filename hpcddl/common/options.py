"""A choice from a table of functions or classes, with its options checked against their signature.

Every pluggable thing (model, data set, schedule, strategy, topology) is an entry of a `Table`.
Its keyword-only parameters are its options: a recipe names the entry and gives them by name, so
adding an entry takes one function and one table line, and a recipe's typing errors are found
before any rank starts work. A recipe may also name a function or class of its user's own, by where
it is (references.py): `package.module:name` or `file.py:name`.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from hpcddl.common import references
from hpcddl.common.own_entries import read_text
from hpcddl.common.yaml_file import shown

WHOLE = 2**63  # whole numbers lie below it, as 64 bits hold them


class Strict(BaseModel):
    """Frozen, and no key that is not declared: the error names the nearest one that is.

    Numbers are finite, and whole ones fit in 64 bits.
    """

    # Defaults are validated too: a default choice may be written as its bare name.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, cls):
            return values
        if not isinstance(values, dict):
            raise ValueError(
                f"must be a mapping, not {shown(values)}; {nearest('', cls.model_fields)}"
            )
        open_ended = cls.model_config["extra"] == "allow"
        unknown = [] if open_ended else [key for key in values if key not in cls.model_fields]
        if unknown:
            hint = nearest(str(unknown[0]), cls.model_fields)
            raise ValueError(f"unknown key {shown(repr(unknown[0]))}; {hint}")
        return values

    @field_validator("*", mode="wrap")
    @classmethod
    def _refuse_equal_keys(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Two texts may be the same number, as 0 and 00: one would be lost."""
        read = validate(value)
        if isinstance(value, dict) and isinstance(read, dict) and len(read) < len(value):
            raise ValueError("a key must not be given twice")
        return read

    @model_validator(mode="after")
    def _refuse_beyond_64_bits(self) -> "Strict":
        for name in type(self).model_fields:
            for value in _numbers(getattr(self, name)):
                if not -WHOLE <= value < WHOLE:
                    raise ValueError(f"{name}={shown(value)}: must be below 2^63")
        return self


class _Open(Strict):
    """The options of a function that takes any: those it does not declare are read as they look."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _read_the_rest(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v if k in cls.model_fields else read_text(v) for k, v in values.items()}


def _numbers(value: Any) -> Iterator[int]:
    """Finds the whole numbers of an option."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        yield from _numbers([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


def nearest(word: str, valid: Any) -> str:
    """Returns a hint for an error: the valid word most similar to `word`, or all of them."""
    close = difflib.get_close_matches(word[:100], list(valid), n=1, cutoff=0.5)
    return f"nearest: {close[0]!r}" if close else f"valid: {', '.join(valid) or 'none'}"


Entry = Callable[..., Any]


class Table(dict[str, Entry]):
    """The entries that a recipe may name, and how a user's own function or class becomes one.

    Args:
        entries: by name.
        own: makes an entry of a function or class that has not been written as one.
    """

    def __init__(self, entries: Mapping[str, Entry], own: Callable[[Entry], Entry]) -> None:
        super().__init__(entries)
        self.own = cache(own)


def entry(table: Mapping[str, Entry], name: str) -> Entry:
    """Finds the entry that a recipe names.

    Raises:
        ValueError: none has that name; what a reference leads to cannot be loaded.
    """
    if name in table:
        return table[name]
    if isinstance(table, Table) and references.is_reference(name):
        return table.own(references.load(name))
    hint = nearest(name, table)
    own = ", nor module:name, nor file.py:name" if isinstance(table, Table) else ""
    raise ValueError(f"{shown(repr(name))} is not one of {', '.join(table)}{own}; {hint}")


@dataclass(frozen=True)
class Choice:
    """One entry of a table and its validated options (a value may itself be a Choice)."""

    name: str
    options: dict[str, Any]

    def build(self, table: Mapping[str, Entry], *arguments: Any) -> Any:
        """Calls the entry with `arguments` and the options."""
        return entry(table, self.name)(*arguments, **self.options)

    def plain(self) -> dict[str, Any]:
        """Returns it as a recipe would write it, with all defaults."""
        values = {
            key: value.plain() if isinstance(value, Choice) else value
            for key, value in self.options.items()
        }
        return {"name": self.name, **values}


@cache
def options_of(entry: Callable[..., Any]) -> type[BaseModel]:
    """Makes a validating model of the keyword-only parameters of a function or class."""
    function = entry.__init__ if inspect.isclass(entry) else entry
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return create_model(entry.__name__, __base__=_Open if takes_any else Strict, **fields)


class From:
    """`Annotated[Choice, From(table)]`: `name` alone, or `{name: ..., option: ...}`."""

    def __init__(self, table: Mapping[str, Callable[..., Any]]) -> None:
        self.table = table

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.choose,
            serialization=core_schema.plain_serializer_function_ser_schema(Choice.plain),
        )

    def choose(self, value: Any) -> Choice:
        """The choice that a recipe's value names.

        Raises:
            ValueError: no such entry; pydantic's ValidationError for wrong options.
        """
        if isinstance(value, Choice):
            value = value.plain()
        if isinstance(value, str):
            value = {"name": value}
        valid = ", ".join(self.table)
        if not isinstance(value, dict) or "name" not in value:
            raise ValueError(
                f"must be a name or a mapping with one, of {valid}; not {shown(value)}"
            )
        options = dict(value)
        name = options.pop("name")
        if not isinstance(name, str):
            raise ValueError(f"name={shown(name)}: must be one of {valid}")
        checked = options_of(entry(self.table, name)).model_validate(options)
        # Of a function that is not ours only what is given: its defaults need not be YAML.
        kept = type(checked).model_fields if name in self.table else checked.model_fields_set
        return Choice(name, {key: getattr(checked, key) for key in kept})
