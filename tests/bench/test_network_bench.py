"""`hpcddl bench network` runs every strategy on every network; its numbers are sane, not fast."""

import json

from hpcddl.bench.network import METHODS, as_text
from tests.conftest import Launch

TINY = ("--classes", 5, "--cells", 4, "--batch", 2, "--periods", 1, "--delays", 0.02)


def test_measures_every_method_on_every_network(hpcddl: Launch) -> None:
    """A delay of every round is paid by whoever averages over all at every step, and in full."""
    done = hpcddl("bench", "network", *TINY, "--json", ranks=2)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    seconds = result["seconds_per_step"]
    assert set(seconds) == set(METHODS)
    for row in seconds.values():
        assert list(row) == [
            "as it is",
            "narrow, 0.8",
            "far, 0.8",
            "narrow, 1.6",
            "far, 1.6",
            "0.02 s a round",
        ]
        assert min(row.values()) > 0
    # Not a speed: an emulated wait has a least length.
    assert seconds["SSGD"]["0.02 s a round"] >= 0.02
    assert "hierarchical" in as_text(result)


def test_refuses_an_odd_number_of_ranks(hpcddl: Launch) -> None:
    done = hpcddl("bench", "network", ranks=1)
    assert done.returncode == 2
    assert "ranks: 1: must be an even number" in done.stderr
