"""Large-batch training on many GPUs: synchronous, decentralised and local SGD side by side.

As a library it gives a training loop of one's own these names; all else is private:

- `init`: joins the ranks of the job.
- `Learner`: makes a network learn together with those of the other ranks.
- `BatchSampler`: deals a data set out to the ranks.
- `UserError`: what is raised for input that the user can correct.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcddl.common.errors import UserError
    from hpcddl.own_loop.learner import Learner
    from hpcddl.own_loop.sampler import BatchSampler
    from hpcddl.own_loop.start import init

__version__ = "0.1.0"
__all__ = ["BatchSampler", "Learner", "UserError", "init"]

_MODULES = {
    "BatchSampler": "hpcddl.own_loop.sampler",
    "Learner": "hpcddl.own_loop.learner",
    "UserError": "hpcddl.common.errors",
    "init": "hpcddl.own_loop.start",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: the command needs neither torch nor MPI to start."""
    if name not in _MODULES:
        raise AttributeError(f"module 'hpcddl' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
