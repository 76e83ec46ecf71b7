"""How the ranks of a node share its cores."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

Cores = tuple[int, ...]  # that one rank may run on, sorted


def cores_of_rank(cores: Cores, node: Sequence[Cores]) -> Fraction:
    """Counts the cores of a rank; a core that k ranks may run on counts 1/k for each.

    Args:
        cores: the rank's.
        node: those of every rank of the node, this one included.
    """
    users = Counter(core for one in node for core in one)
    return sum((Fraction(1, users[core]) for core in cores), Fraction())
