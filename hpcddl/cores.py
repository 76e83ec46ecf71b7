"""How the ranks of a node share its cores."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

Cores = tuple[int, ...]  # that one rank may run on, sorted


def share(cores: Cores, node: Sequence[Cores]) -> Fraction:
    """The cores that are a rank's own, where one that k ranks may run on counts 1/k for each.

    Args:
        cores: the rank's.
        node: those of every rank of the node, this one included.
    """
    users = Counter(core for one in node for core in one)
    return sum((Fraction(1, users[core]) for core in cores), Fraction())


def ranges(cores: Cores) -> str:
    """As in Linux's own lists: 0-3,8."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
