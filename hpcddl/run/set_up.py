"""From a recipe to what the loop trains: data, network, strategy, schedule, diagnostics."""

from pathlib import Path

from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.augment import AUGMENTATIONS
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.staging import stage
from hpcddl.models import hidden_state
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run import resume
from hpcddl.run.config import Config
from hpcddl.run.directory import RunDirectory
from hpcddl.run.learner import learner, switching
from hpcddl.strategies.base import Strategy
from hpcddl.training.batch_norm import BATCH_NORM
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
    train_set, heldout = world.together(lambda: data.build(DATASETS))
    augment = world.together(lambda: config.augment.build(AUGMENTATIONS, train_set.shape))
    local_batch = world.together(lambda: _local_batch(config, world, len(train_set)))
    schedule = world.together(lambda: _schedule(config, directory))
    choice = world.together(lambda: switching(config.strategy, schedule))
    model, strategy = learner(config, choice, world, train_set, fresh=resumed is None)
    network = world.together(
        lambda: forward(
            model,
            train_set.shape,
            channels_last=config.channels_last,
            compiled=config.compile,
            autocast=config.autocast,
        )
    )
    steps = steps_per_epoch(len(train_set), world.size, local_batch)
    statistics = world.together(
        lambda: config.batch_norm.build(BATCH_NORM, model, config.model.name, steps * world.size)
    )
    if train_set.contiguous:
        hidden_state.carry(model, config.accumulate)
    if resumed:
        resume.restore(strategy, resumed, config.seed)
    diagnostics = world.together(
        lambda: _diagnostics(config, strategy, network, train_set, heldout, local_batch)
    )
    return Task(
        network,
        strategy,
        schedule,
        train_set,
        heldout,
        epochs=config.epochs,
        local_batch=local_batch,
        seed=config.seed,
        accumulate=config.accumulate,
        augment=augment,
        prefetch=config.prefetch,
        statistics=statistics,
        diagnostics=diagnostics,
    )


def _staged(data: Choice, folder: Path, world: World) -> Choice:
    """The same data set, read from this node's copy."""
    path = stage(world, Path(data.options["path"]), folder)
    return Choice(data.name, {**data.options, "path": str(path)})


def _local_batch(config: Config, world: World, samples: int) -> int:
    if config.global_batch % world.size:
        raise UserError(
            f"global_batch={config.global_batch}: must be a multiple of the {world.size} learners"
        )
    if config.start_epoch >= config.epochs:
        raise UserError(f"start_epoch={config.start_epoch}: must be below epochs={config.epochs}")
    local = config.global_batch // world.size
    if config.accumulate > local:
        raise UserError(
            f"accumulate={config.accumulate}: must not exceed the local batch of {local} samples"
        )
    steps_per_epoch(samples, world.size, local)
    return local


def _diagnostics(
    config: Config,
    strategy: Strategy,
    network: nn.Module,
    train_set: Dataset,
    heldout: Dataset,
    local_batch: int,
) -> Diagnostics | None:
    options = config.diagnostics
    if not options.every:
        return None
    if options.second_order and config.compile:
        raise UserError(
            "diagnostics.second_order=true: torch.compile has no second derivatives; fix: "
            "compile=false"
        )
    dataset = train_set if options.of == "train" else heldout
    micro_batch = -(-local_batch // config.accumulate)
    return Diagnostics(
        strategy,
        network,
        OverallLoss(dataset, options.samples, config.seed, micro_batch, strategy.world),
        every=options.every,
        accumulate=config.accumulate,
        second_order=options.second_order,
    )


def _schedule(config: Config, directory: RunDirectory) -> Schedule:
    """The run's rates; refuses other epochs where the rates so far were meant for those before."""
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    if directory.resumed:
        resume.check_rates(schedule, config, directory.resumed, directory.path)
    return schedule
