"""The training loop: any strategy, network and data set, on any number of learners."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from hpcddl.cluster.links import links_of
from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import shared_order
from hpcddl.models import hidden_state
from hpcddl.training.accumulate import backward
from hpcddl.training.bad_data import check_samples
from hpcddl.training.diagnostics import Measurement
from hpcddl.training.evaluate import Evaluation, evaluate, log_prior
from hpcddl.training.position import BEGINNING, Position
from hpcddl.training.stopwatch import Stopwatch
from hpcddl.training.task import Task


class Log:
    """Receives the loop's reports; this base class ignores them. All ranks call alike.

    Where `diverged_since` is set, on all ranks alike, the run ends. `watch` has the seconds by what
    they were spent on.
    """

    def __init__(self) -> None:
        self.watch = Stopwatch()
        self.diverged_since: dict[str, Any] | None = None

    def step(self, epoch: int, step: int, rate: float, loss: Tensor) -> None:
        """Hears this learner's loss in one update."""

    def diagnosis(self, epoch: int, step: int, rate: float, measured: Measurement) -> None:
        """Hears what was measured of one update, after its `step`."""

    def evaluation(self, epoch: int, result: Evaluation) -> None:
        """Hears how good the consensus is after `epoch` epochs."""


def train(
    task: Task,
    log: Log,
    start: Position = BEGINNING,
    checkpoint: Callable[[Position], None] = lambda position: None,
    told_to_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Trains from `start` to `task.epochs` or until the run diverges; the last evaluation.

    `checkpoint` is called between updates, when no message is in flight, and decides by itself
    whether one is due, or the run is to stop. After an epoch's last update it is called twice:
    before the evaluation, of all the steps of that epoch, and after it, of none of the next. All
    ranks call alike.

    Raises:
        Interrupted: an evaluation was, for a rank was `told_to_stop`; the learners are as before.
        AgreedError: a loss is not finite because of samples whose features are not.
    """
    model, strategy, train_set = task.model, task.strategy, task.train_set
    world, diagnostics, watch = strategy.world, task.diagnostics, log.watch
    links = links_of(world.comm)
    loader = Prefetcher(train_set, world.device, task.prefetch)
    heldout_loader = Prefetcher(task.heldout, world.device, task.prefetch)
    prior = log_prior(train_set.class_counts)
    dtype = next(model.parameters()).dtype
    steps = task.steps_per_epoch

    def heldout_evaluation() -> Evaluation:
        return evaluate(
            *(model, heldout_loader, task.heldout, task.micro_batch, prior, world),
            told_to_stop=told_to_stop,
        )

    def evaluation() -> Evaluation:
        with strategy.consensus():
            averaged = heldout_evaluation()
            if task.statistics is None:
                return averaged
            order = train_set.order(
                task.seed, 0, rank=world.rank, ranks=world.size, batch=task.micro_batch
            )
            with task.statistics.inside(model, loader.batches(order), world):
                return replace(heldout_evaluation(), loss_averaged_statistics=averaged.loss)

    def learners_of(epoch: int) -> int:
        return start.learners if epoch == start.epoch and start.step else world.size

    def order(epoch: int, first: int) -> Iterator[NDArray]:
        return shared_order(
            train_set.order,
            task.seed,
            epoch,
            learners=learners_of(epoch),
            rank=world.rank,
            ranks=world.size,
            batch=task.local_batch,
            first_step=first,
        )

    def look_at_data(epoch: int, step: int) -> None:
        # An infinite feature may leave the loss finite and only break the gradient, so that the
        # loss of the next step is the first that is not.
        before = (epoch, step - 1) if step else (epoch - 1, steps - 1)
        places = [place for place in (before, (epoch, step)) if place >= (start.epoch, 0)]
        check_samples(train_set, (next(order(*place)) for place in places), world)

    if start.epoch == task.epochs:
        return evaluation()  # of a run that ended before its summary was written
    for epoch in range(start.epoch, task.epochs):
        learners = learners_of(epoch)
        first = start.step if epoch == start.epoch else 0
        with closing(loader.batches(order(epoch, first))) as batches:
            for step, (features, labels) in enumerate(batches, first):
                if task.augment is not None:
                    features = task.augment(features, (task.seed, epoch, step, world.rank))
                watch.lap("load")
                strategy.epoch = epoch + step / steps
                rate = task.schedule(strategy.epoch)
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
                with links.computing():
                    loss = backward(model, inputs, labels, task.accumulate, strategy.loss_scale)
                watch.lap("forward_backward")
                scale = strategy.loss_scale.value if strategy.loss_scale else 0.0
                strategy.update()
                if strategy.loss_scale and strategy.loss_scale.value < scale:
                    # The step was skipped: for an overflow, or for an infinite feature for ever.
                    train_set.check(next(order(epoch, step)))
                watch.lap("agree")
                log.step(epoch, step, rate, loss)
                if diagnostics is not None and (measured := diagnostics.after(rate)):
                    log.diagnosis(epoch, step, rate, measured)
                    watch.lap("diagnose")
                checkpoint(Position(epoch, step + 1, strategy.step, learners))
                watch.lap("other")
                if log.diverged_since:
                    bad = log.diverged_since.get("step", epoch * steps + step + 1) - 1
                    look_at_data(*divmod(bad, steps))
                    break
        hidden_state.reset(model)
        result = evaluation()
        watch.lap("evaluate")
        log.evaluation(epoch + 1, result)
        if not log.diverged_since:
            checkpoint(Position(epoch + 1, 0, strategy.step, world.size))
            watch.lap("checkpoint")
        if log.diverged_since:
            look_at_data(epoch, steps - 1)
            break
    return result
