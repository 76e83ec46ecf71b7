"""`hpcddl bench comm` measures the exchange that training uses; its numbers are sane, not fast."""

import json

from tests.conftest import Launch


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


def test_an_odd_number_of_ranks_is_refused(hpcddl: Launch) -> None:
    done = hpcddl("bench", "comm", ranks=1)
    assert done.returncode == 2
    assert "needs an even number of ranks, got 1" in done.stderr
