"""How learners agree. Adding an algorithm takes one file here and one line in the table."""

from collections.abc import Callable

from hpcddl.strategies.base import Strategy
from hpcddl.strategies.dpsgd import DPSGD
from hpcddl.strategies.local_sgd import LocalSGD
from hpcddl.strategies.majority_vote import MajorityVoteSGD
from hpcddl.strategies.ssgd import SSGD

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "ssgd": SSGD,
    "dpsgd": DPSGD,
    "local_sgd": LocalSGD,
    "majority_vote": MajorityVoteSGD,
}
