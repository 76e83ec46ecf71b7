"""How learners agree. Adding an algorithm takes one file here and one line in the table."""

from functools import partial

from hpcddl.common.options import Table
from hpcddl.common.own_entries import with_first
from hpcddl.strategies.dpsgd import DPSGD
from hpcddl.strategies.local_sgd import LocalSGD
from hpcddl.strategies.majority_vote import MajorityVoteSGD
from hpcddl.strategies.ssgd import SSGD

STRATEGIES = Table(
    {
        "ssgd": SSGD,
        "dpsgd": DPSGD,
        "local_sgd": LocalSGD,
        "majority_vote": MajorityVoteSGD,
    },
    own=partial(with_first, count=4),
)
