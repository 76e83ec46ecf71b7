"""Runs an iteration on rank 0 whose products all ranks compute together."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.communication.messages import add_up_on_rank_zero, broadcast

Array = NDArray[np.float64]
Product = Callable[[Array], Array]
"""v (d,) -> H v (d,)."""
Result = TypeVar("Result")


def on_rank_zero(
    solve: Callable[[Product], Result], share: Product, size: int, world: World
) -> Result:
    """solve(v -> sum over the ranks of share(v)), on every rank. Collective.

    ARPACK and Lanczos stop when a rounded number falls below another. If every rank ran them, ranks
    on different processors could stop after different products and wait for each other. So only
    rank 0 runs them and stores their bases; it sends every v (of `size` numbers).

    Raises:
        UserError: `solve` raised it, or a product is not finite.
    """
    message = np.empty(size + 1)  # v, and whether there is one

    def product(vector: Array) -> Array:
        message[:-1], message[-1] = vector, 1
        broadcast(world.comm, message)
        total = share(message[:-1])
        add_up_on_rank_zero(world.comm, total)
        if not np.isfinite(total).all():
            raise UserError("the Hessian is not finite here: the loss overflows")
        return total

    def lead() -> Result:
        try:
            result = solve(product)
        except UserError:
            _end(message, world)
            raise
        # Any other error ends the job: the others are not to be told of an end.
        _end(message, world)
        return result

    def serve() -> None:
        while True:
            broadcast(world.comm, message)
            if not message[-1]:
                return
            add_up_on_rank_zero(world.comm, share(message[:-1]))

    found = world.together(lambda: lead() if world.rank == 0 else serve())
    return world.comm.bcast(found)


def _end(message: Array, world: World) -> None:
    message[-1] = 0
    broadcast(world.comm, message)
