"""What all studies share: their folder, their texts, their numbers, their shares of the work."""

import ast
import csv
import json
from collections import Counter
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

from hpcddl.common.axes import medians_with_ranges, ticks_at
from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder, nulled, spread, text_table, verdict, verdicts
from tests.conftest import ROOT


def test_a_folder_lists_what_was_written(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "a" / "b")
    folder.write_csv("table.csv", [["x", "y"], [1, None]])
    folder.write_json("results.json", {"losses": [1.5, nan, {"least": (inf, 2)}]})
    with folder.picture("seen", figsize=(2, 2)) as (_, axis):
        axis.plot([1, 2])
    assert str(folder) == f"{tmp_path / 'a' / 'b'}: table.csv, results.json, seen.png, seen.pdf"
    with open(folder.path / "table.csv", newline="") as file:
        assert list(csv.reader(file)) == [["x", "y"], ["1", ""]]
    written = json.loads((folder.path / "results.json").read_text())
    assert written == {"losses": [1.5, None, {"least": [None, 2]}]}
    assert (folder.path / "seen.png").read_bytes().startswith(b"\x89PNG")
    assert (folder.path / "seen.pdf").read_bytes().startswith(b"%PDF")


def test_a_picture_that_fails_leaves_no_file(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), folder.picture("none"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert "none" not in str(folder).removeprefix(str(tmp_path))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--out .*file/below: cannot be written: "):
        StudyFolder(tmp_path / "file" / "below")


def test_a_table_aligns_and_formats() -> None:
    rows = [["SSGD", 16, 0.12345, None], ["DPSGD", 4, 10.0, inf]]
    assert text_table(["name", "n", "loss", "best"], rows, ".3g", left=1) == [
        "name    n   loss  best",
        "SSGD   16  0.123     -",
        "DPSGD   4     10   inf",
    ]


def test_verdicts_say_whose_claim_it_is_and_whether_it_holds() -> None:
    assert verdicts({"it is so": (True, "2 of 3"), "it is not": (False, "1")}) == [
        "paper: it is so\nhere:  yes: 2 of 3",
        "paper: it is not\nhere:  no: 1",
    ]
    assert verdict("all", None) == "paper: all\nhere:  not in this study"
    assert verdict("few", True, "3", whose="ours", where=" for K = 1") == (
        "ours:  few\nhere:  yes for K = 1: 3"
    )


def test_what_is_no_number_counts_as_infinite() -> None:
    assert spread([3.0, nan, 1.0, 2.0]) == (2.5, 1.0, inf)
    assert spread([nan, nan, 1]) == (inf, 1, inf)
    assert nulled([np.float64("nan"), 1, "nan", {"a": -inf}]) == [None, 1, "nan", {"a": None}]


def test_medians_have_bars_to_what_is_finite(tmp_path: Path) -> None:
    """From the least to the greatest value; where the greatest is infinite, none above."""
    points = [(1.0, 2.0, 1.5, 4.0), (2.0, inf, 3.0, inf), (4.0, 5.0, 4.0, inf)]
    with StudyFolder(tmp_path).picture("bars") as (_, axis):
        medians_with_ranges(axis, points, label="all")
        medians_with_ranges(axis, points[1:2], label="none is known")
        ticks_at(axis, [1, 0.5, 1_048_576, 1e9], base=2)
        (container,) = axis.containers
        texts = [text.get_text() for text in axis.get_xticklabels()]
        assert texts == ["1", "0.5", "1048576", "1e+09"]
    line, _, (bars,) = container
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [4, 5]])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [[1.5, 4.0], [4.0, 5.0]]


def test_no_two_classes_of_studies_and_searches_have_one_name() -> None:
    files = [ROOT / "hpcddl/common/study.py", ROOT / "hpcddl/run/records.py"]
    files += [
        file for name in ("reproduce", "tune") for file in (ROOT / "hpcddl" / name).rglob("*.py")
    ]
    names = Counter(
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()
