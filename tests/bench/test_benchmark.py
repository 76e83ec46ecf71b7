"""The skeleton of the benchmarks: turns, tables and what a command does with its options."""

from argparse import ArgumentParser, Namespace

import pytest

from hpcddl.bench import benchmark as bench
from hpcddl.bench.inputs import pairs
from hpcddl.common.errors import UserError


def test_tasks_take_turns_and_warm_rounds_do_not_count() -> None:
    """Two tasks alternate; with two warm rounds of five the last three are left."""
    seen: list[str] = []

    def measure(task: str) -> list[int]:
        seen.append(task)
        return [len(seen), 0]

    found = bench.in_turns({"first": "a", "second": "b"}, 3, measure, warm=2)
    assert seen == ["a", "b"] * 5
    assert found["first"].tolist() == [[5, 0], [7, 0], [9, 0]]
    assert bench.best({"second": found["second"][:, 0]}) == {"second": 6}
    assert bench.medians({"second": found["second"][:, 0]}) == {"second": 8}


def test_a_table_has_units_texts_and_gaps() -> None:
    columns = (bench.Column("ms", "seconds", ".1f", 1e-3), bench.Column("peer", "peer"))
    rows = {"one": {"seconds": 0.0124, "peer": "other"}, "three": {"seconds": 1.0}}
    assert bench.table(rows, columns, "task") == [
        "task       ms   peer",
        "one      12.4  other",
        "three  1000.0",
    ]


def test_options_are_what_measure_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """And what it returns is the JSON, or the text."""
    run = bench.command(lambda *, size: {"double": 2 * size}, lambda r: f"{r['double']} bytes")
    assert run(Namespace(size=3, json=True)) == 0
    assert run(Namespace(size=3, json=False)) == 0
    assert capsys.readouterr().out == '{"double": 6}\n6 bytes\n'


def test_a_docstring_describes_the_command() -> None:
    parser = ArgumentParser()
    bench.describe(parser, "Measures.\n\nAll of it.\n\nexample: hpcddl bench\n")
    assert parser.description == "Measures.\n\nAll of it."
    assert parser.epilog == "example: hpcddl bench"


def test_learners_are_paired() -> None:
    bench.even(2)
    with pytest.raises(UserError, match="ranks: 3: must be an even number"):
        bench.even(3)
    half = pairs(4)
    assert half[0].tolist() == half[1].tolist() == [0.5, 0.5, 0, 0]
    assert half[2].tolist() == half[3].tolist() == [0, 0, 0.5, 0.5]
