"""The papers' map: nothing left out, every command one that runs, the numbers those printed."""

import argparse
import importlib
import shlex
import subprocess
import sys
from math import log

import pytest
from pydantic import ValidationError

from hpcddl import recipes
from hpcddl.commands.table import COMMANDS
from hpcddl.models.reference import REFERENCES
from hpcddl.papers import Entry, Numbers, names, papers
from hpcddl.run.config import load_config
from hpcddl.sweeps import definition
from hpcddl.sweeps.definition import expand, read_sweep
from tests.conftest import Launch

PAPERS = papers()
COMMAND_LINES = sorted(
    {
        line
        for paper in PAPERS.values()
        for entry in paper.entries.values()
        for line in entry.commands
    }
    | {line for paper in PAPERS.values() for line in paper.data.values()}
)
SMALL = ("mini.", "digits.", "kaldi_digits.", "wikitext2_small.")
MODELS = {
    "EfficientNet-B0": "efficientnet_b0",
    "SENet-18": "senet18",
    "VGG-19": "vgg19",
    "ResNet-18": "resnet18",
    "DenseNet-121": "densenet121",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    "ShuffleNet": "shufflenet_v2",
    "GoogLeNet": "googlenet",
    "ResNeXt-29": "resnext29",
    "LSTM": "bilstm",
}


def test_no_table_or_figure_is_left_out() -> None:
    assert names() == [
        *(f"a.table{i}" for i in range(1, 7)),
        *(f"a.fig{i}" for i in range(1, 8)),
        *(f"b.table{i}" for i in range(1, 18)),
        *(f"b.fig{i}" for i in range(1, 20)),
    ]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_is_one_that_runs(line: str) -> None:
    """The subcommand takes its words; the recipe or sweep that it names exists and is accepted."""
    words = shlex.split(line)
    launcher, words = words[: words.index("hpcddl")], words[words.index("hpcddl") + 1 :]
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
    parser = argparse.ArgumentParser(prog=name, exit_on_error=False)
    importlib.import_module(COMMANDS[name][0]).add_arguments(parser)
    a = parser.parse_args(words[len(name.split()) :])
    if name in ("train", "tune"):
        launcher = launcher or shlex.split(a.launcher)
        learners = int(launcher[launcher.index("-np") + 1])
        assert load_config(a.recipe, a.overrides).global_batch % learners == 0
    elif name == "sweep":
        assert expand(read_sweep(a.sweep), tuple(a.overrides))
    elif name == "compare" or name.startswith("analyze"):
        for run in a.runs if "runs" in a else (a.run_a, a.run_b):
            family = str(run).split("/")[1]
            assert family in definition.names() or family in recipes.names()
    else:
        assert not launcher or launcher[0] == "mpirun"


def test_every_recipe_and_sweep_belongs_to_a_table_or_is_small() -> None:
    named = {
        name for paper in PAPERS.values() for e in paper.entries.values() for name in e.recipes
    }
    assert named <= set(recipes.names())
    words = {word for line in COMMAND_LINES for word in shlex.split(line)}
    for name in [*recipes.names(), *definition.names()]:
        assert name in named | words or name.startswith(SMALL), name


def test_known_numbers() -> None:
    """Of each paper one that its text repeats."""
    assert _cells("a.table4")["DPSGD"] == [1.59, 1.60, 1.66, 1.45, 1.47, 1.47]
    assert _cells("a.table2")["ResNeXt-29"][2] == 95.31
    assert _cells("a.fig1")["EfficientNet-B0", 0.04] == [22.15, 91.13]
    assert _cells("b.fig2")["mini-batch SGD", 1] == [92.48, None]
    assert _cells("b.fig2")["local SGD", 8] == [91.2, 2.59]
    assert _cells("b.fig16")[4096] == [75.87, 76.18]


def test_numbers_that_two_tables_share_are_the_same() -> None:
    """Paper A prints the same runs in several tables."""
    table2, table3 = _cells("a.table2"), _cells("a.table3")
    assert table3[128, 0.1, "baseline"] == [row[0] for row in table2.values()]
    assert table3[1024, 0.1, "SSGD"] == [row[3] for row in table2.values()]
    for algorithm in ("SSGD", "DPSGD"):
        assert _cells("a.table5")[0.8, algorithm] == table3[8192, 0.8, algorithm]
        row = _cells("a.table4")[algorithm]
        assert _cells("a.table6")[0.1, algorithm] == [row[1], row[2], row[5]]
    for _, network in _cells("a.table1"):
        (mib,) = {row[0] for key, row in _cells("a.table1").items() if key[1] == network}
        assert mib == REFERENCES[MODELS[network]].paper_mib


def test_numbers_are_in_their_range() -> None:
    """Accuracies between guessing and certainty, losses up to that of guessing."""
    for name in ("a.table2", "a.table3", "a.table5"):
        (table,) = _entry(name).numbers
        assert [MODELS[n] for n in (table.columns if name != "a.table2" else _cells(name))]
        assert all(10 <= value <= 100 for row in _cells(name).values() for value in row)
    for name in ("a.table4", "a.table6"):
        values = [value for row in _cells(name).values() for value in row]
        assert max(values) == round(log(32_000), 2)
        assert all(1 < value < 2.1 for value in values if value != max(values))


def test_malformed_entries_are_refused() -> None:
    with pytest.raises(ValidationError, match="must have 2 cells"):
        Numbers(what="w", settings=["a"], columns=["b"], rows=[[1, 2], [3]])
    with pytest.raises(ValidationError, match="needs commands, or must say what is missing"):
        Entry(title="t")


def test_the_list_has_a_line_for_each(command: Launch) -> None:
    """Its name, its first command and its title; the recipes follow."""
    lines = command("recipes").stdout.splitlines()
    for name in names():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        entry = _entry(name)
        assert line.endswith(entry.title)
        assert (entry.commands or ["-"])[0] in line
    assert [line.split()[0] for line in lines if " " in line][-len(recipes.names()) :] == (
        recipes.names()
    )


def test_one_in_full(command: Launch) -> None:
    """Settings, choices, commands, and numbers under each other as printed."""
    printed = command("recipes", "b.fig2").stdout
    assert "hpcddl prep cifar --data cifar-10-binary.tar.gz" in printed
    assert "\n  hpcddl sweep b.table1\n  hpcddl sweep b.fig2\n" in printed
    assert "rates as scaled, not tuned" in printed
    assert printed.endswith(
        "  algorithm       H  accuracy  speed-up\n"
        "  mini-batch SGD  1     92.48         -\n"
        "  local SGD       2     92.57      1.76\n"
        "  local SGD       8     91.20      2.59\n"
    )
    assert "There is nothing to run." in command("recipes", "b.fig17").stdout


def test_an_unknown_table_is_one_line(command: Launch) -> None:
    done = command("recipes", "a.table9")
    assert done.returncode == 2
    assert done.stderr == "hpcddl: error: table or figure 'a.table9': nearest: 'a.table6'\n"


def test_the_map_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from hpcddl.cli import main; main(['recipes']); main(['recipes', 'a.table3']);"
        "sys.exit(bool({'torch', 'numpy', 'mpi4py', 'horovod'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def _entry(name: str) -> Entry:
    letter, _, key = name.partition(".")
    return PAPERS[letter].entries[key]


def _cells(name: str) -> dict:
    """The rows of the table's first numbers by their settings."""
    table = _entry(name).numbers[0]
    left = len(table.settings)
    return {row[0] if left == 1 else tuple(row[:left]): row[left:] for row in table.rows}
