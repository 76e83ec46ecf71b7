"""A script of one's own on ranks: its example, its errors, and what importing the package costs."""

from pathlib import Path

import pytest
import torch

import hpcddl
from tests.conftest import ROOT, run_python

EXAMPLE = ROOT / "examples/own_loop.py"


@pytest.mark.thorough
def test_the_example_trains_and_goes_on(tmp_path: Path) -> None:
    whole = run_python(EXAMPLE, tmp_path / "whole", ranks=2, cold=True)
    assert whole.returncode == 0, whole.stderr
    lines = whole.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"epoch {i}" for i in range(1, 6)]
    assert float(lines[-1].split()[-2]) < 30
    code = EXAMPLE.read_text().replace("EPOCHS = 5", "EPOCHS = 2")
    (tmp_path / "first.py").write_text(code)
    first = run_python(tmp_path / "first.py", tmp_path / "parts", ranks=2, cold=True)
    rest = run_python(EXAMPLE, tmp_path / "parts", ranks=2, cold=True)
    assert (first.stdout + rest.stdout).splitlines() == lines
    (one, *_), (other, *_) = (
        sorted((tmp_path / name / "checkpoints").glob("*")) for name in ("whole", "parts")
    )
    for rank in range(2):
        states = [torch.load(folder / f"learner-{rank:05d}.pt") for folder in (one, other)]
        weights, others = (state["strategy"]["model"].values() for state in states)
        assert all(map(torch.equal, weights, others))


BEGIN = "import hpcddl, sys\nworld = hpcddl.init()\n"


@pytest.mark.parametrize(
    ("code", "status", "line"),
    [
        ("if world.rank == 1: raise KeyError('mine')\nworld.comm.Barrier()", 1, "KeyError: 'mine'"),
        (
            "if world.rank == 1: raise hpcddl.UserError('rate=x: wrong')\nworld.comm.Barrier()",
            2,
            "hpcddl: error: rate=x: wrong",
        ),
        (
            "import torch\nhpcddl.Learner(torch.nn.Linear(2, 2), torch.optim.AdamW, 'dpsdg')",
            2,
            "hpcddl: error: strategy: 'dpsdg' is not one of",
        ),
    ],
)
def test_an_error_on_a_rank_ends_all(code: str, status: int, line: str) -> None:
    done = run_python("-c", BEGIN + code, ranks=2)
    assert done.returncode == status
    assert done.stderr.count(line) == 1
    if status == 2:
        assert "Traceback" not in done.stderr


def test_one_process_needs_no_launcher() -> None:
    done = run_python("-c", f"{BEGIN}print(world.rank, world.size, hpcddl.init() is world)")
    assert done.stdout.split() == ["0", "1", "True"]


def test_names_are_public_only_where_they_are_listed() -> None:
    for name in hpcddl.__all__:
        assert getattr(hpcddl, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'World'"):
        hpcddl.World  # noqa: B018


def test_importing_the_package_imports_nothing_large() -> None:
    code = "import hpcddl, sys; print({'torch', 'mpi4py', 'numpy'} & sys.modules.keys())"
    assert run_python("-c", code, cold=True).stdout == "set()\n"
