"""`hpcddl bench strategies` runs every strategy and its peers; its numbers are sane, not fast."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hpcddl.bench.methods import ALONE, PEERS, methods
from hpcddl.bench.strategies import as_text, summary
from hpcddl.strategies import STRATEGIES
from tests.conftest import Launch

TINY = ("--classes", 5, "--layers", 1, "--cells", 4, "--batch", 2, "--rounds", 1)
WHOLE = ("--whole-classes", 5, "--whole-cells", 4)


def numbers(value: Any) -> Iterator[float]:
    """All of a JSON value."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


@pytest.fixture(scope="module")
def result(hpcddl: Launch) -> dict[str, Any]:
    done = hpcddl("bench", "strategies", *TINY, *WHOLE, "--json", ranks=2)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_measures_every_method(result: dict[str, Any]) -> None:
    """All of the table and every strategy there is, with finite numbers and ratios to one time."""
    measured = result["methods"]
    assert set(measured) == set(methods(2))
    strategies = {name: m for name, m in measured.items() if "strategy" in m}
    assert {m["strategy"]["name"] for m in strategies.values()} == set(STRATEGIES)
    assert {name: m["peer"] for name, m in measured.items() if "peer" in m} == PEERS
    assert all(map(math.isfinite, numbers(result)))
    assert all(m["seconds_per_step"] > 0 for m in measured.values())
    alone = measured[ALONE]
    for m in measured.values():  # of the single round that was counted
        assert math.isclose(m["to_alone"], m["seconds_per_step"] / alone["seconds_per_step"])


def test_bytes_are_those_of_the_algorithms(result: dict[str, Any]) -> None:
    """Of d weights SSGD sends 2 (n-1)/n d a step, DPSGD d, local SGD 1/H of SSGD's."""
    size = result["mib"] * 2**20
    sent = {name: m.get("bytes_per_step") for name, m in result["methods"].items()}
    assert sent["SSGD"] == sent["DPSGD"] == sent["DPSGD, delayed"] == size
    assert sent["local SGD, H = 4"] == size / 4
    assert sent["local SGD, H = 16"] == size / 16
    assert sent["hierarchical, H = 4, 16"] == size / 16  # blocks of one send nothing


def test_text_holds_the_table(result: dict[str, Any]) -> None:
    text = as_text(result)
    assert all(f"\n{name} " in text for name in methods(2))
    assert "of a bare in-place Allreduce's speed" in text


def test_ratios_are_those_within_a_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    per_step = dict.fromkeys(methods(2), 1.0) | {"SSGD": 1.32, "local SGD, H = 16": 1.05}
    found = summary({name: np.array([t, 2 * t, t]) for name, t in per_step.items()})
    assert found["methods"]["SSGD"] == {
        "seconds_per_step": 1.32,
        "to_alone": 1.32,
        "peer": "DDP",
        "to_peer": 1.32,
    }
    assert math.isclose(found["excess"], 0.05 - 0.32 / 16)


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        (("--rounds", "0"), {}, "--rounds: 0: must be a whole number, at least 1"),
        ((), {"HOROVOD_CYCLE_TIME": "5"}, "HOROVOD_CYCLE_TIME: must not be set"),
    ],
)
def test_bad_input_is_named(
    words: tuple[str, ...], changes: dict[str, str], message: str, hpcddl: Launch
) -> None:
    done = hpcddl("bench", "strategies", *words, ranks=2, **changes)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_odd_number_of_ranks_is_refused(hpcddl: Launch) -> None:
    done = hpcddl("bench", "strategies", ranks=1)
    assert done.returncode == 2
    assert "ranks: 1: must be an even number" in done.stderr
