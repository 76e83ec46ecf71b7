"""The training loop: any strategy, network and data set, on any number of learners."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor, nn

from hpcddl.cluster.world import World
from hpcddl.data import Dataset
from hpcddl.data.augment import Augment
from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import shared_order, steps_per_epoch
from hpcddl.models import hidden_state
from hpcddl.optimizers.schedules import Schedule
from hpcddl.strategies.base import Strategy
from hpcddl.training.accumulate import backward
from hpcddl.training.batch_norm import Recomputed
from hpcddl.training.diagnostics import Diagnostics, Measurement
from hpcddl.training.evaluate import Evaluation, evaluate, log_prior
from hpcddl.training.position import Position
from hpcddl.training.stopwatch import Stopwatch


class Log(Protocol):
    """What the loop tells its news; `Metrics` writes them down. Collective.

    Where `diverged_since` is set, on all ranks alike, the run ends.
    """

    watch: Stopwatch
    diverged_since: dict[str, Any] | None

    def step(self, epoch: int, step: int, rate: float, loss: Tensor) -> None:
        """Of one update: this learner's loss."""

    def diagnosis(self, epoch: int, step: int, rate: float, measured: Measurement) -> None:
        """Of one update, after its `step`."""

    def evaluation(self, epoch: int, result: Evaluation) -> None:
        """Of the consensus after `epoch` epochs."""


def train(
    model: nn.Module,
    strategy: Strategy,
    schedule: Schedule,
    train_set: Dataset,
    heldout: Dataset,
    world: World,
    metrics: Log,
    checkpoint: Callable[[Position], None],
    *,
    start: Position,
    epochs: int,
    local_batch: int,
    accumulate: int,
    seed: int,
    augment: Augment | None,
    prefetch: int,
    statistics: Recomputed | None,
    diagnostics: Diagnostics | None,
    told_to_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Trains from `start` to `epochs` or until the run diverges; the last consensus evaluation.

    `checkpoint` is called between updates, when no message is in flight, and decides by itself
    whether one is due, or the run is to stop. After an epoch's last update it is called twice:
    before the evaluation, of all the steps of that epoch, and after it, of none of the next. All
    ranks call alike.

    Raises:
        Interrupted: an evaluation was, for a rank was `told_to_stop`; the learners are as before.
    """
    loader = Prefetcher(train_set, world.device, prefetch)
    heldout_loader = Prefetcher(heldout, world.device, prefetch)
    prior = log_prior(train_set.class_counts)
    dtype = next(model.parameters()).dtype
    steps = steps_per_epoch(len(train_set), world.size, local_batch)
    micro_batch = -(-local_batch // accumulate)
    watch = metrics.watch

    def heldout_evaluation() -> Evaluation:
        return evaluate(
            *(model, heldout_loader, heldout, micro_batch, prior, world),
            told_to_stop=told_to_stop,
        )

    def evaluation() -> Evaluation:
        with strategy.consensus():
            averaged = heldout_evaluation()
            if statistics is None:
                return averaged
            order = train_set.order(seed, 0, rank=world.rank, ranks=world.size, batch=micro_batch)
            with statistics.inside(model, loader.batches(order), world):
                return replace(heldout_evaluation(), loss_averaged_statistics=averaged.loss)

    if start.epoch == epochs:
        return evaluation()  # of a run that ended before its summary was written
    for epoch in range(start.epoch, epochs):
        first, learners = 0, world.size
        if epoch == start.epoch and start.step:
            first, learners = start.step, start.learners
        order = shared_order(
            train_set.order,
            seed,
            epoch,
            learners=learners,
            rank=world.rank,
            ranks=world.size,
            batch=local_batch,
            first_step=first,
        )
        with closing(loader.batches(order)) as batches:
            for step, (features, labels) in enumerate(batches, first):
                if augment is not None:
                    features = augment(features, (seed, epoch, step, world.rank))
                watch.lap("load")
                strategy.epoch = epoch + step / steps
                rate = schedule(strategy.epoch)
                for group in strategy.optimizer.param_groups:
                    group["lr"] = rate
                strategy.optimizer.zero_grad()
                inputs = network_input(features, dtype)
                watch.lap("other")
                if diagnostics is not None:
                    diagnostics.before(inputs, labels)
                    watch.lap("diagnose")
                strategy.before_forward()
                watch.lap("agree")
                with world.network.computing():
                    loss = backward(model, inputs, labels, accumulate, strategy.loss_scale)
                watch.lap("forward_backward")
                strategy.update()
                watch.lap("agree")
                metrics.step(epoch, step, rate, loss)
                if diagnostics is not None and (measured := diagnostics.after(rate)):
                    metrics.diagnosis(epoch, step, rate, measured)
                    watch.lap("diagnose")
                checkpoint(Position(epoch, step + 1, strategy.step, learners))
                watch.lap("other")
                if metrics.diverged_since:
                    break
        hidden_state.reset(model)
        result = evaluation()
        watch.lap("evaluate")
        metrics.evaluation(epoch + 1, result)
        if metrics.diverged_since:
            break
        checkpoint(Position(epoch + 1, 0, strategy.step, world.size))
        watch.lap("checkpoint")
    return result
