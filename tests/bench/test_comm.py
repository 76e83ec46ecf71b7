"""`hpcddl bench comm` measures the exchange that training uses; its numbers are sane, not fast."""

import json

import pytest

from tests.conftest import Launch


@pytest.mark.thorough
def test_measures_every_part(hpcddl: Launch) -> None:
    """All parts of an exchange between two ranks are timed, and the ratios are theirs."""
    done = hpcddl("bench", "comm", "--classes", 100, "--repeats", 3, "--json", ranks=2)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ranks"] == 2
    assert round(result["mib"], 2) == 133.35  # the bi-LSTM's 164.62 less 31,900 classes' outputs
    assert all(result[name] > 0 for name in result)
    ratio = result["bare_sendrecv_seconds"] / result["transfer_seconds"]
    assert result["transfer_to_bare_speed"] == ratio


@pytest.mark.thorough
def test_says_what_sixteen_bits_cost(hpcddl: Launch) -> None:
    """Rounding to 8 and 11 bits of mantissa: a relative error of about 2^-9 and 2^-12 / sqrt(3)."""
    errors = []
    for words in ([], ["--exchange-dtype", "float16"], ["--exchange-dtype", "bfloat16"]):
        done = hpcddl("bench", "comm", "--classes", 10, "--repeats", 1, "--json", *words, ranks=2)
        assert done.returncode == 0, done.stderr
        errors.append(json.loads(done.stdout)["rounding_error"])
    assert 0 < errors[0] < 1e-7
    assert 5e-5 < errors[1] < 5e-4
    assert 5e-4 < errors[2] < 5e-3


def test_an_odd_number_of_ranks_is_refused(hpcddl: Launch) -> None:
    done = hpcddl("bench", "comm", ranks=1)
    assert done.returncode == 2
    assert "ranks: 1: must be an even number" in done.stderr
