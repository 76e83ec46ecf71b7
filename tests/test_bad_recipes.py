"""No recipe and no override ends in a traceback: each gives a Config or an error of one line."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hpcddl.common.errors import UserError
from hpcddl.common.yaml_file import write_yaml
from hpcddl.run.config import Config, load_config
from hpcddl.sweeps.definition import expand, read_sweep

RECIPES = ("mini.dpsgd", "mini.super_learners", "digits.mlp.ssgd", "cifar10.resnet20.local_sgd")
WHOLE = {
    name: Config.model_dump(load_config(name), mode="json") for name in RECIPES
}  # every default written out

NASTY = some.sampled_from(
    [
        *("", " ", "0", "-0", "-1", "1.5", "1e3", "1e-3", "1e999", "inf", ".inf", "-inf", "nan"),
        *("null", "~", "yes", "no", "on", "true", "True", "1_000", "008", "0x10", "0o7", "1:30"),
        *("2024", "2026-02-30", "set #1", "a: b", "- a", "[", "]", "{", "}", "[1", "{a: 1", "'"),
        *('"', "'a'b", "*a", "&a", "&a [*a]", "!!int 5", "!x", "|", ">", "%", "@", "`", "?", "=="),
        *("<<", "..", "/", "a.b", ".", "a/b.yaml", "name", "base", "5.yaml", "none", "averaged"),
        *("9" * 19, "9" * 20, "9" * 4301, "-" + "9" * 30, "²", "٣", "\u2028", "\x85", "\ufeff"),
        *("a\nb", "a\tb", "a\rb", "\x1b[31m", "\x00", "\x7f", "\ud800", "\U0001f600", "x" * 5000),
        *("run@²", "run@1", "@", "a@-1", "[[1]]", "{a: {b: [1, {c: d}]}}", "{1: 2}", "{[1]: 2}"),
        *("{name: ring, neighbours: 2}", "{name: [ring]}", "{name: null}", "{name: ring, name: a}"),
        *("[1, 2]", "[]", "{}", "[null]", "{a: null}", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
    ]
)
TEXT = NASTY | some.text(max_size=12)
VALUE = some.recursive(
    some.none()
    | TEXT
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.sampled_from(["mlp", "ring", "sgd", "ssgd", "constant", "none"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def paths(values: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Finds the way to each key of nested mappings."""
    if not isinstance(values, dict):
        return []
    below = [path for key, value in values.items() for path in paths(value, (*above, key))]
    return [(*above, key) for key in values] + below


def changed(values: Any, path: tuple[str, ...], change: str, value: Any) -> Any:
    """Returns the values with one key dropped, renamed, or given another value."""
    head, *rest = path
    if rest:
        return {**values, head: changed(values[head], tuple(rest), change, value)}
    others = {key: one for key, one in values.items() if key != head}
    if change == "drop":
        return others
    if change == "rename":
        return {**others, str(value): values[head]}
    if change == "wrap":
        return {**others, head: [values[head]]}
    return {**others, head: value}


@some.composite
def recipes(draw: some.DrawFn) -> str:
    """Draws the text of a recipe with one to three mistakes, of keys, of values or of YAML."""
    values: Any = WHOLE[draw(some.sampled_from(RECIPES))]
    if draw(some.booleans()):
        values = {"base": draw(some.sampled_from(RECIPES) | TEXT)}
    for _ in range(draw(some.integers(1, 3))):
        known = paths(values)
        if known:
            path = draw(some.sampled_from(known))
            change = draw(some.sampled_from(["drop", "rename", "wrap", "set", "set", "set"]))
            values = changed(values, path, change, draw(VALUE))
    text = write_yaml(_as_text(values))
    lines = text.splitlines(keepends=True)
    place = draw(some.integers(0, len(lines)))
    extra = draw(some.sampled_from(["", "", "twice", "nasty", "cut"]))
    if extra == "twice" and lines:
        lines.insert(place, draw(some.sampled_from(lines)))
    if extra == "nasty":
        lines.insert(place, f"{draw(TEXT)}: {draw(TEXT)}\n")
    return "".join(lines[:place] if extra == "cut" else lines)


def _as_text(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _as_text(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_as_text(value) for value in values]
    return values if values is None else str(values)


KEYS = sorted({".".join(path) for values in WHOLE.values() for path in paths(values)})
KEY = some.sampled_from([*KEYS, "links.emulate", "links.emulate.slow", "network", "base"])
WORDS = some.lists(some.builds("{}={}".format, KEY | TEXT, TEXT) | TEXT, min_size=1, max_size=3)


def check(read: Any, *given_: Any) -> None:
    """Reads, and lets no exception pass but an error of one line."""
    line = ""
    try:
        read(*given_)
    except UserError as error:
        line = str(error)
    assert line.isprintable(), repr(line)
    assert len(line) < 2000


def many(cases: int) -> settings:
    return settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "r.yaml"


@many(1000)
@given(text=recipes())
def test_recipes(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogatepass"))
    check(load_config, str(path))


@many(1000)
@given(recipe=some.sampled_from(RECIPES), words=WORDS)
def test_overrides(recipe: str, words: list[str]) -> None:
    check(load_config, recipe, words)


@many(300)
@given(content=some.binary(max_size=60) | TEXT.map(lambda t: t.encode(errors="surrogatepass")))
def test_any_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    check(load_config, str(path))
    check(read_sweep, str(path))


@many(200)
@given(name=TEXT)
def test_any_name(name: str) -> None:
    check(load_config, name)
    check(read_sweep, name)


@many(300)
@given(axes=some.lists(some.dictionaries(KEY | TEXT, VALUE, max_size=2), max_size=2) | VALUE)
def test_axes(path: Path, axes: Any) -> None:
    whole = {"description": "d", "recipe": "mini.ssgd", "learners": "2", "axes": _as_text(axes)}
    path.write_bytes(write_yaml(whole).encode(errors="surrogatepass"))
    check(lambda: expand(read_sweep(str(path))))
