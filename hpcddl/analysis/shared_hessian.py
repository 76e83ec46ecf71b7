"""The Hessian of a sample's mean loss, whose products all ranks compute together."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor, nn

from hpcddl.analysis.product_count import ProductCount
from hpcddl.analysis.rank_zero import Array, Product, Result, on_rank_zero
from hpcddl.analysis.sample_loss import Sample
from hpcddl.cluster.world import World
from hpcddl.communication.messages import add_up
from hpcddl.training.hessian import Batch, Hessian

_REPEATS = 4


def batches_of_rank(sample: Sample, batch: int, rank: int, ranks: int, whole: bool) -> list[Batch]:
    """The batches of `rank`, maybe none: of at most `batch` samples and nearly equal size.

    `whole` ones are the same on any number of ranks, as statistics over a batch require. Otherwise
    there are enough of them for every rank to have equally many.
    """
    parts = ceil(len(sample) / batch)
    if not whole:
        parts = min(len(sample), ceil(parts / ranks) * ranks)
    batches = zip(
        sample.features.tensor_split(parts), sample.labels.tensor_split(parts), strict=True
    )
    return list(batches)[rank::ranks]


class SharedHessian:
    """H of the mean loss over all ranks' batches, at the present weights of `network`.

    Args:
        mine: this rank's batches, on its device.
        predictions: those of all ranks' batches.
        memory: bytes for graphs, of each rank; see `Hessian`.
    """

    def __init__(
        self,
        network: nn.Module,
        mine: list[Batch],
        predictions: int,
        world: World,
        count: ProductCount,
        memory: float = 0,
    ) -> None:
        self._mine = Hessian(network, mine, predictions, memory)
        self._world = world
        self._count = count

    @property
    def size(self) -> int:
        """d, the number of weights."""
        return self._mine.weights.size

    def solve(self, what: str, work: Callable[[Product], Result]) -> Result:
        """work(v -> H v), led by rank 0, on every rank. Collective.

        Args:
            what: for the count of products.

        Raises:
            UserError: `work` raised it, or a product is not finite.
        """

        def share(vector: Array) -> Array:
            self._count.add(what)
            part: Array = self._mine(torch.from_numpy(vector)).cpu().numpy()
            return part

        return on_rank_zero(work, share, self.size, self._world)

    def gradient(self) -> Tensor:
        """g (d,), float64, on the host. Collective."""
        total = self._mine.gradient().cpu()
        add_up(self._world.comm, total.numpy())
        return total

    def seconds(self) -> tuple[float, float]:
        """Measures a gradient and a product over this rank's batches in turns; the best of each."""
        vector = torch.ones(self.size, dtype=torch.float64)
        turns = [
            (_timed(self._mine.gradient), _timed(lambda: self._mine(vector)))
            for _ in range(_REPEATS)
        ]
        gradient, product = map(min, zip(*turns, strict=True))
        return gradient, product


def _timed(work: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    work().cpu()  # which waits for the device
    return time.perf_counter() - began
