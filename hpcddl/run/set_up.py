"""From a recipe to what the loop trains: data, network, strategy, schedule, diagnostics."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.augment import AUGMENTATIONS, Augment
from hpcddl.data.identity import check_fingerprint
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.staging import stage
from hpcddl.models import hidden_state
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run import resume
from hpcddl.run.config import Config
from hpcddl.run.directory import RunDirectory
from hpcddl.run.learner import learner, switching
from hpcddl.run.one_sample import check_micro_batch, check_scores
from hpcddl.strategies.base import Strategy
from hpcddl.training.batch_norm import BATCH_NORM, Recomputed
from hpcddl.training.diagnostics import Diagnostics
from hpcddl.training.forward import forward
from hpcddl.training.overall import OverallLoss
from hpcddl.training.task import Task


def set_up(config: Config, world: World, directory: RunDirectory, node_folder: Path | None) -> Task:
    """Builds what `config` says, on this learner; takes up the directory's checkpoint. Collective.

    Args:
        node_folder: where the data is copied to first, on every node's own disk; None: nowhere.

    Raises:
        AgreedError: what the recipe asks for cannot be done here.
    """
    resumed = directory.resumed
    data = _staged(config.data, node_folder, world) if node_folder else config.data
    given = world.together(lambda: _given(config, data, directory, world.size))
    train_set, local_batch = given.train_set, given.local_batch
    model, strategy = learner(config, given.strategy, world, train_set, fresh=resumed is None)
    steps = steps_per_epoch(len(train_set), world.size, local_batch) * world.size
    world.together(lambda: _check_fit(config, model, train_set, local_batch))
    network, statistics = world.together(lambda: _computing(config, model, train_set, steps))
    if resumed:
        resume.restore(strategy, resumed, config.seed)
    diagnostics = world.together(lambda: _diagnostics(config, strategy, network, given))
    return Task(
        network,
        strategy,
        given.schedule,
        train_set,
        given.heldout,
        epochs=config.epochs,
        local_batch=local_batch,
        seed=config.seed,
        accumulate=config.accumulate,
        augment=given.augment,
        prefetch=config.prefetch,
        statistics=statistics,
        diagnostics=diagnostics,
    )


def _staged(data: Choice, folder: Path, world: World) -> Choice:
    """The same data set, read from this node's copy."""
    path = stage(world, Path(data.options["path"]), folder)
    return Choice(data.name, {**data.options, "path": str(path)})


class _Given(NamedTuple):
    """What the recipe names and the data settles, before there is a network."""

    train_set: Dataset
    heldout: Dataset
    augment: Augment | None
    local_batch: int
    schedule: Schedule
    strategy: Choice


def _given(config: Config, data: Choice, directory: RunDirectory, ranks: int) -> _Given:
    train_set, heldout = data.build(DATASETS)
    if directory.resumed:
        check_fingerprint(data.options["path"], directory.resumed.data)
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    if directory.resumed:
        # Other epochs are refused where the rates so far were meant for those before.
        resume.check_rates(schedule, config, directory.resumed, directory.path)
    return _Given(
        train_set,
        heldout,
        config.augment.build(AUGMENTATIONS, train_set.shape),
        _local_batch(config, ranks, len(train_set)),
        schedule,
        switching(config.strategy, schedule),
    )


def _local_batch(config: Config, ranks: int, samples: int) -> int:
    if config.global_batch % ranks:
        raise UserError(
            f"global_batch={config.global_batch}: must be a multiple of the {ranks} learners"
        )
    if config.start_epoch >= config.epochs:
        raise UserError(f"start_epoch={config.start_epoch}: must be below epochs={config.epochs}")
    local = config.global_batch // ranks
    if config.accumulate > local:
        raise UserError(
            f"accumulate={config.accumulate}: must not exceed the local batch of {local} samples"
        )
    steps_per_epoch(samples, ranks, local)  # refuses a set that is too small for a step
    return local


def _check_fit(config: Config, model: nn.Module, train_set: Dataset, local_batch: int) -> None:
    name = config.model.name
    check_scores(model, name, train_set)
    check_micro_batch(model, name, train_set.shape, local_batch, config.accumulate)


def _computing(
    config: Config, model: nn.Module, train_set: Dataset, batches: int
) -> tuple[nn.Module, Recomputed | None]:
    """Wraps the network for the kernels that are asked for, and says how batch norm is evaluated.

    Args:
        batches: of an epoch, of all learners.
    """
    network = forward(
        model,
        train_set.shape,
        channels_last=config.channels_last,
        compiled=config.compile,
        autocast=config.autocast,
    )
    if train_set.contiguous:
        hidden_state.carry(model, config.accumulate)
    return network, config.batch_norm.build(BATCH_NORM, model, config.model.name, batches)


def _diagnostics(
    config: Config, strategy: Strategy, network: nn.Module, given: _Given
) -> Diagnostics | None:
    options = config.diagnostics
    if not options.every:
        return None
    if options.second_order and config.compile:
        raise UserError(
            "diagnostics.second_order=true: torch.compile has no second derivatives; fix: "
            "compile=false"
        )
    dataset = given.train_set if options.of == "train" else given.heldout
    micro_batch = -(-given.local_batch // config.accumulate)
    return Diagnostics(
        strategy,
        network,
        OverallLoss(dataset, options.samples, config.seed, micro_batch, strategy.world),
        every=options.every,
        accumulate=config.accumulate,
        second_order=options.second_order,
    )
