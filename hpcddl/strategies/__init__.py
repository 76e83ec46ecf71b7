"""How learners agree. Adding an algorithm takes one file here and one line in the table."""

from hpcddl.strategies.dpsgd import DPSGD
from hpcddl.strategies.ssgd import SSGD

STRATEGIES = {
    "ssgd": SSGD,
    "dpsgd": DPSGD,
}
