"""Functions and classes of a user's own, which a recipe names by where they are.

`package.module:name` is imported as Python imports it; `file.py:name` is a file's, relative to the
recipe. To name one is to run its code.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

_FORM = re.compile(r"(?P<place>[^:]+):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_FILE = re.compile(r"[^:]+\.py:[^\W\d][\w.]*")


class Source(NamedTuple):
    """The files that a reference to a file has run: its own, and neighbours that it imports."""

    folder: Path
    files: tuple[str, ...]  # below the folder, its own first
    digest: str  # the first 16 digits of the SHA-256 of their names and contents


class _Loaded(NamedTuple):
    module: ModuleType
    source: Source


def is_reference(name: str) -> bool:
    """Whether a text is of one of the two forms."""
    return _FORM.fullmatch(name) is not None


def load(reference: str) -> Callable[..., Any]:
    """Imports the function or class that `reference` names.

    Raises:
        ValueError: no such file, module or name; its code raises an exception.
    """
    match = _FORM.fullmatch(reference)
    assert match is not None
    place, name = match["place"], match["name"]
    module = _file(place).module if place.endswith(".py") else _module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; nearest: {close[0]!r}" if close else ""
            raise ValueError(f"{reference}: {place} has no {part!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{reference}: must be a function or a class")
    return found


def source_of(reference: str) -> Source:
    """Finds the files behind a reference to a file.

    Raises:
        ValueError: as `load`.
    """
    return _file(reference.rpartition(":")[0]).source


def files_in(values: Any) -> list[str]:
    """Lists the references to files in a recipe's values."""
    return [one for one in _texts(values) if _FILE.fullmatch(one)]


def modules_in(values: Any) -> list[str]:
    """Lists the references to modules that a recipe's values have loaded."""
    texts = (one for one in _texts(values) if is_reference(one) and not _FILE.fullmatch(one))
    return [one for one in texts if one.partition(":")[0] in sys.modules]


def _texts(values: Any) -> Iterator[str]:
    """Lists the texts in a recipe's sections, which may name something of a user's own."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        for key, value in values.items():
            if key not in ("description", "init_from", "path"):
                yield from _texts(value)
    elif isinstance(values, list):
        for value in values:
            yield from _texts(value)


def replaced(values: Any, by: Mapping[str, str]) -> Any:
    """Returns a recipe's values with its references to files as `by` names them."""
    if isinstance(values, str):
        return by.get(values, values)
    if isinstance(values, dict):
        return {key: replaced(value, by) for key, value in values.items()}
    return [replaced(value, by) for value in values] if isinstance(values, list) else values


def absolute(values: Any, folder: Path) -> Any:
    """Returns a recipe's values with its references to files resolved from `folder`."""
    return replaced(values, {one: os.path.abspath(folder / one) for one in files_in(values)})


@cache
def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"{name}: there is no module {error.name!r}; fix: install it, or put its folder on "
                "PYTHONPATH"
            ) from None
        raise ValueError(_failed(name, error)) from error
    except Exception as error:
        raise ValueError(_failed(name, error)) from error


@cache
def _file(path: str) -> _Loaded:
    """Runs a file, with its folder first on the path as if it were a script."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    folder = Path(path).parent
    name = f"_own_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[name] = module  # where dataclasses, for one, look for their names
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(_failed(path, error)) from error
    finally:
        sys.path.remove(str(folder))
        # Another run's copy of the file has neighbours of the same names.
        neighbours = {
            one: sys.modules.pop(one)
            for one in set(sys.modules) - before - {name}
            if _below(folder, sys.modules[one])
        }
    own = sorted({str(_below(folder, each)) for each in neighbours.values()})
    files = (Path(path).name, *own)
    digest = hashlib.sha256()
    for each in files:
        text = content if each == files[0] else (folder / each).read_bytes()
        digest.update(f"{each} {len(text)}\n".encode() + text)
    return _Loaded(module, Source(folder, files, digest.hexdigest()[:16]))


def _below(folder: Path, module: ModuleType) -> Path | None:
    """The file of `module` in `folder`, relative to it; None if it lies elsewhere."""
    path = getattr(module, "__file__", None)
    if not path or not Path(path).is_relative_to(folder) or "site-packages" in Path(path).parts:
        return None
    return Path(path).relative_to(folder)


def _failed(place: str, error: Exception) -> str:
    """Says in one line what went wrong in a user's code, and where."""
    trace = error.__traceback__
    line = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == place:
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = f", line {error.lineno}"
    text = " ".join(str(error).split())
    return f"{place}{line}: its code raises {type(error).__name__}: {text}"
