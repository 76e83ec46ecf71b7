"""Text stays text: a value is read by the field that it is for, never by YAML's guess."""

from pathlib import Path

import pytest

from hpcddl.common.errors import UserError
from hpcddl.common.yaml_file import read_yaml, shown, write_yaml
from hpcddl.run.config import Config, load_config, save_config
from hpcddl.run.overrides import apply_override, word_of
from hpcddl.sweeps.definition import Sweep, expand, read_sweep

TEXTS = (
    *("2024", "0123", "2026-02-30", "yes", "set #1", "first try: 0.5", "1:30", "1_000", "1e-3"),
    *("a=b", " blank ", "- dash", "*star", "&and", "!bang", "%", "@", "`", "?", ":", "", "="),
    *("<<", "\udcff"),  # the latter: of a name that is not UTF-8
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_as_it_is(text: str, tmp_path: Path) -> None:
    """As an override, in a recipe, and in the config of a run."""
    config = load_config("mini.ssgd", [f"data.path={text}", f"description={text}"])
    assert config.data.options["path"] == config.description == text
    recipe = tmp_path / "r.yaml"
    recipe.write_text(write_yaml({"base": "mini.ssgd", "description": text}))
    assert load_config(str(recipe)).description == text
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    "text",
    [*TEXTS, "null", "~", "[", "{", "'", '"', "[1]", "true", "\U0001f600", "\x7f\x85\u2028\n"],
)
@pytest.mark.parametrize("inside", [False, True])
def test_words_of_a_sweep_are_read_back(text: str, inside: bool) -> None:
    """An axis' value is written as an override and read from it again."""
    value = {"name": text, text or "empty": [text, None]} if inside else text
    assert apply_override({}, word_of("a", value)) == {"a": value}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=008", "seed", 8),
        ("epochs=1_000", "epochs", 1000),
        ("epochs=3.0", "epochs", 3),
        ("clip_norm=1e-3", "clip_norm", 0.001),
        ("clip_norm=null", "clip_norm", None),
        ("clip_norm=~", "clip_norm", None),
        *((f"compile={word}", "compile", True) for word in ("yes", "true", "on", "True")),
        *((f"compile={word}", "compile", False) for word in ("no", "false", "off", "False")),
        ('description="null"', "description", "null"),
        ("description='a, b'", "description", "a, b"),
        ("checkpoint.keep_epochs=[1, 02]", "checkpoint", {"keep_epochs": (1, 2)}),
        ("links.emulate={slow: {0: 2.0, 1: 3}}", "links", {"slow": {0: 2.0, 1: 3.0}}),
    ],
)
def test_a_text_becomes_what_its_field_is(override: str, key: str, value: object) -> None:
    read = getattr(load_config("mini.ssgd", [override]), key)
    if key == "checkpoint":
        read = {"keep_epochs": read.keep_epochs}
    if key == "links":
        read = {"slow": read.emulate.slow}
    assert read == value
    assert type(read) is type(value)


def test_options_of_several_types() -> None:
    """A word or a number, whichever the text is."""
    for text, value in (("node", "node"), ("none", "none"), ("02", 2)):
        config = load_config("mini.dpsgd", [f"strategy.super_learners={text}"])
        assert config.strategy.options["super_learners"] == value
    for text, after in (("first_decay", "first_decay"), ("3", 3.0)):
        config = load_config("mini.local_sgd", [f"strategy.after={text}"])
        assert config.strategy.options["after"] == after


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("epochs=1:30", "epochs=1:30: must be a whole number"),
        ("epochs=true", "epochs=true: must be a whole number"),
        ("epochs=1.5", "epochs=1.5: must be a whole number"),
        ("seed=-1", "seed=-1: must be greater than or equal to 0"),
        ("seed=18446744073709551615", "seed=18446744073709551615: must be below 2^63"),
        ("prefetch=4611686018427387904", "must be less than or equal to 1024"),
        ("seed=²", "seed=²: must be a whole number"),
        ("model.cells=9223372036854775808", "cells=9223372036854775808: must be below 2^63"),
        (f"seed={'9' * 5000}", "must be a whole number below 2^63"),
        ("compile=maybe", "compile=maybe: must be true or false"),
        ("compile=2", "compile=2: must be true or false"),
        ("description=null", "description=None: must be text"),
        ("schedule.rate=inf", "schedule.rate=inf: must be a finite number"),
        ("schedule.rate=nan", "schedule.rate=nan: must be a finite number"),
        ("clip_norm=.inf", "clip_norm=.inf: must be a number"),
        ("checkpoint.every_minutes=1e999", "must be a finite number"),
        ("links.emulate={slow: {0: inf}}", "must be a finite number"),
        ("links.emulate={slow: {x: 2}}", "must be a whole number"),
        (
            "links.emulate={slow: {0: 2, 00: 3}}",
            "links.emulate.slow: a key must not be given twice",
        ),
        ("network=1", "links: must be a mapping, not 1"),
        ("checkpoint=null", "checkpoint: must be a mapping, not None"),
        ("checkpoint=[1]", "checkpoint: must be a mapping, not ['1']"),
        ("seed={a: 1}", "seed={'a': '1'}: must be a whole number"),
        ("seed.x=1", "seed={'x': '1'}: must be a whole number"),
        ("model.name=[mlp]", "model: name=['mlp']: must be one of"),
        ("model.name={a: b}", "model: name={'a': 'b'}: must be one of"),
        ("model.name=null", "model: name=None: must be one of"),
        ("model=[mlp]", "model: must be a name or a mapping with one, of"),
        ("model={[a]: b}", "a key must be text"),
        ("model={name: mlp, name: bilstm}", "key name must not be given twice"),
        ("model={name: mlp", "the value is not YAML"),
        ("model=[" + 2000 * "[", "must not be nested so deeply"),
        ('description="\\0"', "must not hold a NUL"),
        ("description='a", "the value is not YAML"),
        (".=1", "must be dotted.key=value"),
        ("model..x=1", "must be dotted.key=value"),
        ("model.hidden=50", "unknown key 'hidden'"),
        ("a\nb=1", r"unknown key 'a\nb'"),
        ("checkpoint.keep_epochs=5", "checkpoint.keep_epochs=5: must be a list"),
    ],
)
def test_a_wrong_value_is_one_line(override: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("mini.ssgd", [override])
    assert line in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", "must be a mapping"),
        (b"5", "must be a mapping"),
        (b"base: mini.ssgd\ncheckpoint:\n", "checkpoint: must be a mapping, not None"),
        (b"base: mini.ssgd\nmodel:\n", "model: must be a name or a mapping"),
        (b"base: mini.ssgd\nseed: 1\nseed: 2\n", "line 3: key seed must not be given twice"),
        (b"base: mini.ssgd\nmodel:\n  a: 1\n  'a': 1\n", "line 4: key a must not be given twice"),
        (b"base: mini.ssgd\nseed: !!int 5\n", "line 2: must have no tag"),
        (b"base: mini.ssgd\n5: 1\n", "unknown key '5'"),
        (b"base: mini.ssgd\nnull: 1\n", "unknown key 'null'"),
        (b"base: mini.ssgd\n<<: {seed: 1}\n", "unknown key '<<'"),
        (b"base: mini.ssgd\nmodel: &m {a: *m}\n", "line 2: must not contain itself"),
        (b"base: [a]\n", "base=['a']: must be a recipe's name"),
        (b"base: 5\n", "recipe '5': must be a YAML file or one of"),
        (b"base: r\n", "base=r: must be a recipe that does not build on it"),
        (b"base: .\n", "recipe '.': must be a YAML file or one of"),
        (b'base: "a\\0"\n', "must not hold a NUL"),
        (b"base: " + 5000 * b"a", "must be a YAML file or one of"),
        (b"description: \xff\n", "must be UTF-8 text; byte 13 is not"),
        (b"\xff\xfes\0e\0e\0d\0", "must be UTF-8 text; byte 0 is not"),
        (b"a: \x07", "not YAML"),
        (b'a: "\\Uffffffff"', "not YAML"),
        (b"a: 1\n---\nb: 1", "not YAML"),
        (b"?\n- a\n:\n- b\n", "a key must be text"),
    ],
)
def test_a_bad_file_is_one_line(text: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(text)
    with pytest.raises(UserError) as caught:
        load_config(str(tmp_path / "r.yaml"))
    assert line in str(caught.value)
    assert str(caught.value).isprintable()


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in (tmp_path / "folder.yaml", "a\nb.yaml", 300 * "x" + ".yaml", 5000 * "x", "", "a\0"):
        for read in (load_config, read_sweep):
            with pytest.raises(UserError) as caught:
                read(str(name))
            assert str(caught.value).isprintable()


def test_a_cycle_of_bases(tmp_path: Path) -> None:
    for one, other in ("ab", "bc", "ca"):
        (tmp_path / f"{one}.yaml").write_text(f"base: {other}\n")
    with pytest.raises(UserError, match="base=a: must be a recipe that does not build on it"):
        load_config(str(tmp_path / "a.yaml"))


def test_aliases_do_not_multiply() -> None:
    """Ten to the power of nine values in a few lines are refused before they are made."""
    bomb = "".join(f"x{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 9))
    with pytest.raises(ValueError, match="must not hold more than 10,000 values"):
        read_yaml("x0: &a0 [" + ", ".join("0123456789") + "]\n" + bomb)
    assert read_yaml("a: &a [1]\nb: *a") == {"a": ["1"], "b": ["1"]}


def test_what_is_written_is_read_back() -> None:
    values = {"a": None, "b": "null", "c": ["1", "~", *TEXTS], "d": {"no": "1e-3"}}
    assert read_yaml(write_yaml(values)) == values
    assert write_yaml({"epochs": "16", "compile": "true"}) == "epochs: 16\ncompile: true\n"


def test_shown_values_are_short_and_on_one_line() -> None:
    assert shown("a b") == "a b"
    assert shown("a\nb") == r"'a\nb'"
    assert shown("") == "''"
    assert shown("x" * 400) == "x" * 300 + "..."


def expanded(axes: str, tmp_path: Path) -> list:
    path = tmp_path / "s.yaml"
    path.write_text(f"description: d\nrecipe: mini.ssgd\nlearners: 2\naxes: {axes}\n")
    return expand(read_sweep(str(path)))


def test_runs_of_sweeps_keep_their_names(tmp_path: Path) -> None:
    """They name folders of runs that were trained when YAML still guessed."""
    for axis, name in (
        ("schedule.rate: [1.0e-3]", "rate=0.001"),
        ("schedule.rate: [0.10]", "rate=0.1"),
        ("schedule.rate: [0.00001]", "rate=1e-05"),
        ("schedule.rate: [1e-3]", "rate=1e-3"),
        ("compile: [yes]", "compile=True"),
        ("clip_norm: [null]", "clip_norm=None"),
        ("checkpoint.keep_epochs: [[1, 2]]", "keep_epochs=[1, 2]"),
        ("model: [{name: bilstm, layers: 1}]", "model={'name': 'bilstm', 'layers': 1}"),
        ("data.path: [0123]", "path=0123"),
        ("data.path: [2026-02-30]", "path=2026-02-30"),
        ("data.path: ['set #1']", "path=set #1"),
    ):
        assert [run.name for run in expanded(f"[{{{axis}}}]", tmp_path)] == [name]


def test_learners_of_an_axis_are_read_as_a_number(tmp_path: Path) -> None:
    assert [run.learners for run in expanded("[learners: [1, 2]]", tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ("5", "axes=5: must be a list"),
        ("[5]", "axes.0=5: must be a mapping"),
        ("[{}]", "axes: {}: must be {key: [value, ...]}"),
        ("[{seed: []}]", "axes: seed: must be"),
        ("[{seed: {}}]", "axes: seed: must be"),
        ("[{'': {seed: 1}}]", "is to be a folder's name"),
        ("[{'..': {seed: 1}}]", "is to be a folder's name"),
        ('[{"a\\nb": {seed: 1}}]', "is to be a folder's name"),
        (f"[{{{300 * 'x'}: {{seed: 1}}}}]", "is to be a folder's name"),
        (f"[{', '.join(5 * ['{seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}'])}]", "at most 10,000 runs"),
        ("[{learners: [99999999999999999999]}]", "must be a whole number that divides"),
        ("[{seed: [1]}, {epochs: [x]}]", "epochs=x: must be a whole number"),
    ],
)
def test_bad_axes_of_a_file_are_one_line(axes: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        expanded(axes, tmp_path)
    assert line in str(caught.value)
    assert str(caught.value).isprintable()


def test_typed_values_are_taken_as_well() -> None:
    """What Python code gives: the config as plain values, the axes of a sweep."""
    config = load_config("mini.dpsgd")
    assert Config.model_validate(config.plain()) == config
    (run,) = expand(Sweep(description="", recipe="mini.ssgd", learners=1, axes=[{"seed": [3]}]))
    assert (run.name, run.overrides) == ("seed=3", ("seed=3",))
