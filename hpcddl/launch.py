"""`hpcddl train`: from a recipe and a launcher's ranks to a finished run directory."""

import argparse
import shlex
import sys
import time
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from hpcddl import checkpoint, hidden_state, resume
from hpcddl.autocast import Autocast
from hpcddl.batch_norm import BATCH_NORM
from hpcddl.checkpoint import Checkpoint, Position
from hpcddl.config import Config, load_config, save_config
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.augment import AUGMENTATIONS
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.staging import folder_argument, stage
from hpcddl.emulate import emulated
from hpcddl.errors import UserError
from hpcddl.loss_scale import LossScale
from hpcddl.metrics import Metrics
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.noise import GradientNoise
from hpcddl.options import Choice
from hpcddl.schedules import SCHEDULES, Schedule
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy, same_start
from hpcddl.strategies.weight_noise import WeightNoise
from hpcddl.summary import write_summary
from hpcddl.train import train
from hpcddl.world import World


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl train`."""
    parser.description = "Train on all ranks that the launcher started."
    parser.epilog = (
        "example: mpirun -np 4 hpcddl train swb300.dpsgd data.path=shards/swb300 --out runs/a"
    )
    parser.add_argument("recipe", help="a packaged recipe (see `hpcddl recipes`) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys")
    parser.add_argument("--out", type=Path, help="the run directory (default: runs/RECIPE)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint, if there is one, on as many ranks or on others",
    )
    parser.add_argument(
        "--stage",
        type=folder_argument,
        metavar="DIR",
        help="copy the data to this folder of every node's own disk first, and read it there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the run ended by itself, diverged or not."""
    began = time.time()
    world = World.create()
    with world.failing_together():
        return _run(arguments, world, began)


def _run(arguments: argparse.Namespace, world: World, began: float) -> int:
    folder = arguments.out or default_folder(arguments.recipe)
    config = world.together(lambda: load_config(arguments.recipe, arguments.overrides))
    if config.network.emulate:
        emulation = config.network.emulate
        world = world.together(lambda: emulated(world, emulation))
    resumed = world.together(lambda: resume.find(folder, config, arguments.resume))
    if world.together(lambda: resume.has_ended(folder, config)):
        if world.rank == 0:
            print(f"run {folder} has finished: {folder}/summary.json; to go on, raise epochs")
        return 0
    data = _staged(config.data, arguments.stage, world) if arguments.stage else config.data
    train_set, heldout = world.together(lambda: data.build(DATASETS))
    augment = world.together(lambda: config.augment.build(AUGMENTATIONS, train_set.shape))
    local_batch = world.together(lambda: _local_batch(config, world, len(train_set)))
    schedule = world.together(lambda: _schedule(config, resumed, folder))
    choice = world.together(lambda: _switching(config.strategy, schedule))
    model, strategy = _learner(config, choice, world, train_set, fresh=resumed is None)
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
    restarts = resume.restarts(resumed, world)
    world.together(lambda: _make_folder(folder, config, world))
    if world.rank == 0:
        _announce(config, strategy, folder, resumed, train_set.contiguous)
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

    def save_if_due(position: Position) -> None:
        if checkpoint.is_due(position, config.checkpoint, config.epochs):
            state = resume.learner_state(strategy)
            log = {**metrics.state_dict(), "restarts": restarts}
            keep = config.checkpoint.keep_last, config.checkpoint.keep_epochs
            checkpoint.save(folder, world, position, state, log, *keep)

    with closing(metrics):
        result = train(
            Autocast(model, getattr(torch, config.autocast)) if config.autocast else model,
            strategy,
            schedule,
            train_set,
            heldout,
            world,
            metrics,
            save_if_due,
            start=start,
            epochs=config.epochs,
            local_batch=local_batch,
            accumulate=config.accumulate,
            seed=config.seed,
            augment=augment,
            prefetch=config.prefetch,
            statistics=statistics,
        )
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
    return 0


def default_folder(recipe: str) -> Path:
    """runs/NAME of a packaged recipe (whose name has dots in it) or of a YAML file."""
    return Path("runs") / Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")


def _staged(data: Choice, folder: Path, world: World) -> Choice:
    """The same data set, read from this node's copy."""
    path = stage(world, Path(data.options["path"]), folder)
    return Choice(data.name, {**data.options, "path": str(path)})


def _switching(strategy: Choice, schedule: Schedule) -> Choice:
    """The strategy with the epoch of the schedule's first decay where it asks for that."""
    if strategy.options.get("after") != "first_decay":
        return strategy
    if schedule.first_decay is None:
        raise UserError("strategy.after=first_decay: the schedule has no decay; give an epoch")
    return Choice(strategy.name, {**strategy.options, "after": schedule.first_decay})


def _learner(
    config: Config, choice: Choice, world: World, train_set: Dataset, fresh: bool
) -> tuple[nn.Module, Strategy]:
    """The network and its strategy; all learners hold the same weights."""
    torch.manual_seed(config.seed)
    model = world.together(lambda: _network(config, train_set))
    model.to(world.device, getattr(torch, config.dtype))
    initial = config.init_from
    if initial and fresh:
        world.together(lambda: _start_from(model, initial, world))
    same_start(model, world)

    def build() -> Strategy:
        optimizer = config.optimizer.build(OPTIMIZERS, model)
        strategy: Strategy = choice.build(STRATEGIES, model, optimizer, world, config.seed)
        if config.autocast == "float16" and not strategy.may_skip_steps:
            raise UserError(
                f"autocast=float16: strategy.name={choice.name} cannot do without a step of a "
                "learner whose gradient overflows; allowed: bfloat16"
            )
        return strategy

    strategy = world.together(build)
    strategy.clip_norm = config.clip_norm
    if config.gradient_noise.eta:
        gradient_noise = config.gradient_noise
        strategy.gradient_noise = GradientNoise(
            gradient_noise.eta, gradient_noise.gamma, config.seed
        )
    strategy.loss_scale = loss_scale = LossScale() if config.autocast == "float16" else None
    if config.weight_noise.std:
        noise = config.weight_noise
        strategy = WeightNoise(strategy, noise.std, noise.reading, config.seed)
        strategy.loss_scale = loss_scale
    # Each learner draws its own dropout masks; the data order has a generator of its own.
    torch.manual_seed(config.seed + 1 + world.rank)
    return model, strategy


def _network(config: Config, train_set: Dataset) -> nn.Module:
    model: nn.Module = config.model.build(MODELS, train_set.shape, train_set.classes)
    takes_words = any(isinstance(module, nn.Embedding) for module in model.modules())
    if takes_words != train_set.contiguous:
        one, other = ("words", "numbers") if takes_words else ("numbers", "words")
        raise UserError(
            f"model.name={config.model.name}: takes {one}, data.name={config.data.name} has {other}"
        )
    return model


def _make_folder(folder: Path, config: Config, world: World) -> None:
    if world.rank:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
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


def _schedule(config: Config, resumed: Checkpoint | None, folder: Path) -> Schedule:
    """The run's rates; refuses other epochs where the rates so far were meant for those before."""
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    if resumed:
        resume.check_rates(schedule, config, resumed, folder)
    return schedule


def _start_from(model: nn.Module, reference: str, world: World) -> None:
    """Loads the consensus of another run on rank 0, from where every learner will get it."""
    if world.rank:
        return
    state = checkpoint.consensus_state(checkpoint.at_epoch(*checkpoint.parse_reference(reference)))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"init_from={reference}: another network: {reason}") from None


def _announce(
    config: Config,
    strategy: Strategy,
    folder: Path,
    resumed: Checkpoint | None,
    contiguous: bool,
) -> None:
    world = strategy.world
    parameters = strategy.weights.size
    here = f"{world.node.size} of them on this node"
    print(f"run {folder}: {' '.join(map(shlex.quote, sys.argv[1:]))}")
    print(f"{world.size} learners, {here}, on {world.device.type}; {strategy.describe()}")
    if config.clip_norm:
        print(f"gradients clipped to norm {config.clip_norm:g}")
    if config.gradient_noise.eta:
        noise = config.gradient_noise
        print(f"gradient noise of variance {noise.eta:g} / (1 + t)^{noise.gamma:g}")
    if config.network.emulate:
        print("emulated network: seconds are those of the links in network.emulate")
    if config.autocast:
        scaled = f", loss scaled from {strategy.loss_scale.value:g}" if strategy.loss_scale else ""
        print(f"mixed precision: products in {config.autocast}, weights in float32{scaled}")
    print(
        f"{config.model.name}: {parameters:,} weights ({4 * parameters / 2**20:.2f} MiB as float32)"
        f"; global batch {config.global_batch}"
    )
    if resumed:
        print(resume.describe(resumed, world, config.epochs, contiguous))
    sys.stdout.flush()
