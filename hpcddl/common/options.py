"""A choice from a table of functions or classes, with its options checked against their signature.

Every pluggable thing (model, data set, schedule, strategy, topology) is an entry of a plain dict.
Its keyword-only parameters are its options: a recipe names the entry and gives them by name, so
adding an entry takes one function and one table line, and a recipe's typing errors are found
before any rank starts work.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model, model_validator
from pydantic_core import CoreSchema, core_schema


class Strict(BaseModel):
    """Frozen, and no key that is not declared: the error names the nearest one that is."""

    # Defaults are validated too: a default choice may be written as its bare name.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        unknown = [key for key in values if key not in cls.model_fields]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; {nearest(unknown[0], cls.model_fields)}")
        return values


def nearest(word: str, valid: Any) -> str:
    """Returns a hint for an error: the valid word most similar to `word`, or all of them."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f"nearest: {close[0]!r}" if close else f"valid: {', '.join(valid) or 'none'}"


@dataclass(frozen=True)
class Choice:
    """One entry of a table and its validated options (a value may itself be a Choice)."""

    name: str
    options: dict[str, Any]

    def build(self, table: Mapping[str, Callable[..., Any]], *arguments: Any) -> Any:
        """Calls the entry with `arguments` and the options."""
        return table[self.name](*arguments, **self.options)

    def plain(self) -> dict[str, Any]:
        """Returns it as a recipe would write it, with all defaults."""
        values = {
            key: value.plain() if isinstance(value, Choice) else value
            for key, value in self.options.items()
        }
        return {"name": self.name, **values}


def options_of(entry: Callable[..., Any]) -> type[BaseModel]:
    """Makes a validating model of the keyword-only parameters of a function or class."""
    function = entry.__init__ if inspect.isclass(entry) else entry
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(entry.__name__, __base__=Strict, **fields)


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
        if not isinstance(value, dict) or "name" not in value:
            raise ValueError(f"must be a name or a mapping with one of {', '.join(self.table)}")
        options = dict(value)
        name = options.pop("name")
        if name not in self.table:
            hint = nearest(str(name), self.table)
            raise ValueError(f"{name!r} is not one of {', '.join(self.table)}; {hint}")
        checked = options_of(self.table[name]).model_validate(options)
        return Choice(name, {key: getattr(checked, key) for key in type(checked).model_fields})
