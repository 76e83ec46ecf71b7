"""Cores that ranks share count in part."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hpcddl.cluster.cores import Cores, cores_of_rank
from hpcddl.common.ranges import ranges

CORES = st.sets(st.integers(0, 40), min_size=1, max_size=12).map(lambda s: tuple(sorted(s)))


@given(st.lists(CORES, min_size=1, max_size=8))
def test_shares_sum_to_the_cores(node: list[Cores]) -> None:
    """No core is lost or given twice."""
    assert sum(cores_of_rank(one, node) for one in node) == len(
        {core for one in node for core in one}
    )


def test_bound_and_unbound_ranks_have_the_same() -> None:
    unbound = [tuple(range(8))] * 4
    bound = [(0, 1), (2, 3), (4, 5), (6, 7)]
    for node in (unbound, bound):
        assert [cores_of_rank(one, node) for one in node] == [2] * 4
    assert cores_of_rank((0,), [(0,)] * 3) == Fraction(1, 3)


def test_ranges() -> None:
    assert ranges((0, 1, 2, 3, 8, 10, 11)) == "0-3,8,10-11"
    assert ranges(()) == ""
