"""The command itself: help, unknown words, and what importing it must not cost."""

import subprocess
import sys

import pytest

from hpcddl.cli import main
from hpcddl.commands.table import COMMANDS
from tests.conftest import run_python


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert "example: " in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize(
    "words", [["trian"], ["prep", "kladi"], ["train"], ["train", "mini.ssgd", "--bad"]]
)
def test_a_wrong_word_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hpcddl: error: ")
    assert printed.err.count("\n") == 1


STARTS = """
import os, runpy, sys
import scipy.optimize, sklearn.datasets, matplotlib.pyplot, torch._dynamo, horovod.torch
import torch.utils.tensorboard  # what takes the time, and none of hpcddl
for name in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv = ["hpcddl", *name.split(), "--help"]
        try:
            runpy.run_module("hpcddl.cli", run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code)  # taking all of torch down takes longest
    if os.wait()[1]:
        sys.exit(f"{name} does not start")
"""


@pytest.mark.thorough
def test_every_command_starts_by_itself() -> None:
    """Where no other command has imported what this one needs of hpcddl."""
    done = run_python("-c", STARTS, *COMMANDS, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("example: ") == len(COMMANDS)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """As in `hpcddl recipes | head`: no traceback."""
    words = [sys.executable, "-m", "hpcddl.cli", "recipes"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_help_imports_nothing_heavy() -> None:
    """`hpcddl --help` answers at once because it loads neither torch nor MPI nor pydantic."""
    code = (
        "import sys; from hpcddl.cli import main; main(['--help']);"
        "heavy = {'torch', 'numpy', 'mpi4py', 'pydantic', 'horovod', 'yaml'} & set(sys.modules);"
        "sys.exit(bool(heavy))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
