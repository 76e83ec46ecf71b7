"""What is trained: everything that the loop needs, and nothing of where results are kept."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hpcddl.data import Dataset
from hpcddl.data.augment import Augment
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.optimizers.schedules import Schedule
from hpcddl.strategies.base import Strategy
from hpcddl.training.batch_norm import Recomputed
from hpcddl.training.diagnostics import Diagnostics


@dataclass(frozen=True)
class Task:
    """One learner's side of a training.

    Args:
        model: the network as it is called: the strategy's own, or a compiled or cast form of it.
        epochs: at whose end the training ends.
        local_batch: samples of this learner in each step.
        seed: of the data order and of augmentation.
        accumulate: micro-batches that the local batch is processed in.
        prefetch: batches that are loaded ahead by a thread; 0: none.
        statistics: recomputes batch norm's statistics for each evaluation; None: they are averaged.
        diagnostics: measures the noise of single updates; None: of none.
    """

    model: nn.Module
    strategy: Strategy
    schedule: Schedule
    train_set: Dataset
    heldout: Dataset
    epochs: int
    local_batch: int
    seed: int
    accumulate: int = 1
    augment: Augment | None = None
    prefetch: int = 0
    statistics: Recomputed | None = None
    diagnostics: Diagnostics | None = None

    @property
    def global_batch(self) -> int:
        """Samples of all learners in each step."""
        return self.local_batch * self.strategy.world.size

    @property
    def micro_batch(self) -> int:
        """Samples that are processed at once, in training and in evaluations."""
        return -(-self.local_batch // self.accumulate)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch; samples that do not fill the last global batch are left out."""
        return steps_per_epoch(len(self.train_set), self.strategy.world.size, self.local_batch)
