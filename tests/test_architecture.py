"""The floors of docs/architecture.md: imports point down, so no two folders import each other."""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcddl.commands.table import COMMANDS
from tests.conftest import ROOT


def floors(page: str) -> dict[str, int]:
    """The floor of each folder, from the diagram in docs/architecture.md."""
    (diagram,) = re.findall(r"^```floors\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line.split() for line in diagram.splitlines()]
    return {name: int(number) for number, *names in lines for name in names}


FLOOR = floors((ROOT / "docs/architecture.md").read_text())
FLOOR[""] = FLOOR["cli"]  # hpcddl itself, whose names are those of own_loop


def modules(root: Path) -> dict[str, Path]:
    """All modules of both packages, by their full names."""
    files = [file for name in ("hpcddl", "data_prep") for file in (root / name).rglob("*.py")]
    names = (".".join(file.relative_to(root).with_suffix("").parts) for file in files)
    return {n.removesuffix(".__init__"): f for n, f in zip(names, files, strict=True)}


def folder(module: str) -> str:
    """The folder of a module, or the name of one that lies in the root; "" for hpcddl itself."""
    first, *rest = module.split(".")
    return first if first == "data_prep" else rest[0] if rest else ""


def imported(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports anywhere in it, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner, node.module) if name in known)


def upward(root: Path) -> list[str]:
    """A line for each import that does not point down."""
    known = modules(root)
    return sorted(
        f"{module} imports {other}"
        for module, file in known.items()
        for other in set(imported(file, known))
        if folder(other) not in ("", folder(module))
        and FLOOR[folder(other)] >= FLOOR[folder(module)]
    )


def test_the_root_holds_no_more_than_the_command() -> None:
    assert sorted(path.name for path in (ROOT / "hpcddl").glob("*.py")) == ["__init__.py", "cli.py"]


def test_every_folder_has_its_floor_and_says_what_it_is_for() -> None:
    inits = sorted((ROOT / "hpcddl").glob("*/__init__.py"))
    assert {file.parent.name for file in inits} | {"data_prep", "cli", ""} == set(FLOOR)
    for file in [*inits, ROOT / "data_prep/__init__.py"]:
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_each_command_s_file_bears_its_name() -> None:
    """Of `prep kaldi` kaldi.py, of `reproduce table4-mini` table4_mini.py."""
    for name, (module, _) in COMMANDS.items():
        file = module.rpartition(".")[2]
        assert re.sub("[ -]", "_", name).endswith(file), name


def test_imports_point_down() -> None:
    assert upward(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("common.files", "from hpcddl.cluster.world import World"),
        ("strategies.base", "from hpcddl.run import fit"),
        ("data.manifest", "import hpcddl.models.bilstm"),
        ("run.records", "def late():\n    from data_prep.packing import pack"),
        ("run.fit", "from hpcddl.cli import main"),
    ],
)
def test_a_planted_import_is_found(module: str, line: str, tmp_path: Path) -> None:
    for name in ("hpcddl", "data_prep"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.yaml"))
    file = tmp_path / "hpcddl" / (module.replace(".", "/") + ".py")
    file.write_text(f"{file.read_text()}\n{line}\n")
    faults = upward(tmp_path)
    assert faults
    assert all(text.startswith(f"hpcddl.{module} imports ") for text in faults)


def test_no_docstring_is_a_fragment() -> None:
    """One that begins with "Of" lacks what it is about: it says what of something."""
    found = [
        f"{module}: {text.splitlines()[0]}"
        for module, file in modules(ROOT).items()
        for text in re.findall(r'^ *"""(Of\b.*)', file.read_text(), re.MULTILINE)
    ]
    assert found == []
