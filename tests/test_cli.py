"""The command itself: help, unknown words, and what importing it must not cost."""

import subprocess
import sys

import pytest

from hpcddl.cli import COMMANDS, main
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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_starts_from_nothing(name: str) -> None:
    """In a Python of its own, where no other command has imported what this one needs."""
    done = run_python("-m", "hpcddl.cli", *name.split(), "--help", cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "example: " in done.stdout


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
