"""Deals a data set out to the ranks, for torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from torch.utils.data import Sampler

from hpcddl.common.errors import UserError
from hpcddl.data.sampler import epoch_permutation, rank_batches, steps_per_epoch
from hpcddl.own_loop.start import init


class BatchSampler(Sampler[list[int]]):
    """Yields this rank's batches of an epoch, each a list of indices into the data set.

        loader = DataLoader(dataset, batch_sampler=hpcddl.BatchSampler(dataset, batch=32))

    All ranks together take every sample at most once in an epoch; what does not fill the last
    global batch is left out. The order depends on seed and epoch alone, and is that of
    `hpcddl train`. Each iteration is the next epoch, so that no epoch can be forgotten.

    Args:
        dataset: what is sampled; only its length counts.
        batch: samples of this rank in each update.
        seed: of the order; the same on all ranks.

    Raises:
        UserError: there are fewer samples than one global batch takes.
    """

    def __init__(self, dataset: Sized, batch: int, *, seed: int = 0) -> None:
        if batch < 1:
            raise UserError(f"batch={batch}: must be at least 1")
        world = init()
        self.rank, self.ranks = world.rank, world.size
        self.samples, self.batch, self.seed = len(dataset), batch, seed
        self.epoch = 0
        """The epoch that the next iteration gives."""
        self._first_step = 0
        self._steps = steps_per_epoch(self.samples, self.ranks, batch)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Lets the next iteration begin in `epoch`, behind its first `step` batches.

        Raises:
            UserError: the epoch has fewer batches.
        """
        if epoch < 0 or not 0 <= step <= self._steps:
            raise UserError(
                f"start_at({epoch}, {step}): the epoch must be at least 0, the step from 0 to "
                f"{self._steps}"
            )
        self.epoch, self._first_step = epoch, step

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = self.epoch, self._first_step
        self.epoch, self._first_step = epoch + 1, 0
        order = epoch_permutation(self.samples, self.seed, epoch)
        for indices in rank_batches(
            order, rank=self.rank, ranks=self.ranks, batch=self.batch, first_step=first
        ):
            yield indices.tolist()

    def __len__(self) -> int:
        """Batches of a whole epoch on each rank."""
        return self._steps
