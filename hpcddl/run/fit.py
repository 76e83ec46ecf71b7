"""From a Config to a finished run directory, on all ranks."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from torch import nn

from hpcddl.cluster.emulate import emulated
from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError, warn
from hpcddl.common.options import Choice
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.augment import AUGMENTATIONS
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.staging import stage
from hpcddl.models import hidden_state
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run import intact, resume
from hpcddl.run.agreement import agreeing
from hpcddl.run.announce import announce
from hpcddl.run.checkpoint import Checkpoint
from hpcddl.run.config import Config, save_config
from hpcddl.run.learner import learner, switching
from hpcddl.run.metrics import Metrics
from hpcddl.run.run_lock import RunLock, reaches_all_nodes
from hpcddl.run.saver import Saver
from hpcddl.run.stopping import Notice
from hpcddl.run.summary import write_summary
from hpcddl.strategies.base import Strategy
from hpcddl.training.batch_norm import BATCH_NORM
from hpcddl.training.diagnostics import Diagnostics
from hpcddl.training.evaluate import Interrupted
from hpcddl.training.forward import forward
from hpcddl.training.loop import train
from hpcddl.training.overall import OverallLoss
from hpcddl.training.position import Position


def fit(
    config: Config,
    world: World,
    folder: Path,
    notice: Notice,
    *,
    began: float,
    go_on: bool = False,
    node_folder: Path | None = None,
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Trains as `config` says, into the run directory `folder`; the summary is written last.

    Collective. A run that has ended before is left as it is.

    Args:
        notice: whether this rank has been told to stop.
        began: when the process started, in seconds since the epoch.
        go_on: from the newest checkpoint, if there is one.
        node_folder: where the data is copied to first, on every node's own disk.
        saved: called after each checkpoint, on all ranks.

    Raises:
        UserError: what the recipe asks for cannot be done here; another job trains in `folder`.
        Stopped: the run was told to stop, and has.
    """
    if config.network.emulate:
        emulation, real = config.network.emulate, world
        world = world.together(lambda: emulated(real, emulation))
    begun, ended = world.on_rank_zero(lambda: _found(folder, config, go_on))
    if ended:
        if world.rank == 0:
            print(f"run {folder} has finished: {folder}/summary.json; to go on, raise epochs")
        return
    with closing(RunLock(folder)) as lock:
        search = intact.Search(None, {})
        if begun:
            world.on_rank_zero(lock.take)
            search = resume.find(folder, config, world)
        _fit(config, world, folder, notice, lock, search, began, node_folder, saved)


def _fit(
    config: Config,
    world: World,
    folder: Path,
    notice: Notice,
    lock: RunLock,
    search: intact.Search,
    began: float,
    node_folder: Path | None,
    saved: Callable[[], None],
) -> None:
    """`fit`, from what was found in `folder`, which is locked unless it is new."""
    resumed = search.found
    data = _staged(config.data, node_folder, world) if node_folder else config.data
    train_set, heldout = world.together(lambda: data.build(DATASETS))
    augment = world.together(lambda: config.augment.build(AUGMENTATIONS, train_set.shape))
    local_batch = world.together(lambda: _local_batch(config, world, len(train_set)))
    schedule = world.together(lambda: _schedule(config, resumed, folder))
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
    start = Position(epoch=config.start_epoch)
    if resumed:
        resume.restore(strategy, resumed, config.seed)
        start = resumed.position
    diagnostics = world.together(
        lambda: _diagnostics(config, strategy, network, train_set, heldout, local_batch)
    )
    restarts = resume.restarts(resumed, world)
    world.on_rank_zero(lambda: _make_folder(folder, config, lock, search))
    if not reaches_all_nodes(lock.path, world) and world.rank == 0:
        warn(f"--out {folder}: a job on another node would not be refused: locks do not reach it")
    announce(config, strategy, folder, resumed, train_set.contiguous)
    metrics = Metrics(
        folder,
        world,
        strategy.traffic,
        every=config.log_every,
        steps_per_epoch=steps,
        epochs=config.epochs,
        global_batch=config.global_batch,
        loss_scale=strategy.loss_scale,
        state=resumed.log if resumed else None,
    )

    with closing(metrics), agreeing(world.comm) as agreement:
        saver = Saver(
            folder,
            strategy,
            metrics,
            agreement,
            notice,
            lock,
            config.checkpoint,
            epochs=config.epochs,
            steps_per_epoch=steps,
            restarts=restarts,
            resumed=resumed.position if resumed else None,
            saved=saved,
        )
        try:
            result = train(
                network,
                strategy,
                schedule,
                train_set,
                heldout,
                world,
                metrics,
                saver,
                start=start,
                epochs=config.epochs,
                local_batch=local_batch,
                accumulate=config.accumulate,
                seed=config.seed,
                augment=augment,
                prefetch=config.prefetch,
                statistics=statistics,
                diagnostics=diagnostics,
                told_to_stop=notice.given,
            )
        except Interrupted:
            saver.stop()
        write_summary(
            folder,
            strategy,
            metrics,
            result,
            classes=train_set.classes,
            global_batch=config.global_batch,
            restarts=restarts,
            began=began,
        )


def _staged(data: Choice, folder: Path, world: World) -> Choice:
    """The same data set, read from this node's copy."""
    path = stage(world, Path(data.options["path"]), folder)
    return Choice(data.name, {**data.options, "path": str(path)})


def _found(folder: Path, config: Config, go_on: bool) -> tuple[bool, bool]:
    """Whether there is a run in `folder`, and whether it has ended."""
    begun = resume.check(folder, config, go_on)
    return begun, begun and resume.has_ended(folder, config)


def _make_folder(folder: Path, config: Config, lock: RunLock, search: intact.Search) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = lock.taken
        lock.take()
        if not begun:
            resume.check(folder, config, go_on=False)  # another job may have been faster
        intact.tidy(folder, search.faults)
        save_config(config, folder / "config.yaml")
        # Of fewer epochs: where there is a summary, the run has ended by itself.
        (folder / "summary.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written: {error.strerror}") from None


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
            "diagnostics.second_order=true: torch.compile has no second derivatives; allowed: "
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


def _schedule(config: Config, resumed: Checkpoint | None, folder: Path) -> Schedule:
    """The run's rates; refuses other epochs where the rates so far were meant for those before."""
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    if resumed:
        resume.check_rates(schedule, config, resumed, folder)
    return schedule
