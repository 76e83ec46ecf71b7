"""`hpcddl train`: from a recipe and a launcher's ranks to a finished run directory."""

import argparse
import shlex
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from hpcddl import checkpoint
from hpcddl.checkpoint import Checkpoint, Position
from hpcddl.config import Config, load_config, save_config
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.data.staging import folder_argument, stage
from hpcddl.errors import UserError
from hpcddl.metrics import Metrics
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.options import Choice
from hpcddl.schedules import SCHEDULES, Schedule, agree_until
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy, same_start
from hpcddl.strategies.weight_noise import WeightNoise
from hpcddl.summary import write_summary
from hpcddl.train import train
from hpcddl.world import World

# A resumed run may be lengthened and watched differently; all else would make another run of it.
MAY_CHANGE = {"description", "epochs", "checkpoint", "log_every", "prefetch"}


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
        "--resume", action="store_true", help="go on from the newest checkpoint, if there is one"
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
    resumed = world.together(lambda: _resumed(folder, config, world, arguments.resume))
    data = _staged(config.data, arguments.stage, world) if arguments.stage else config.data
    train_set, heldout = world.together(lambda: data.build(DATASETS))
    local_batch = world.together(lambda: _local_batch(config, world, len(train_set)))
    schedule = world.together(lambda: _schedule(config, resumed, folder))
    choice = world.together(lambda: _switching(config.strategy, schedule))
    model, strategy = _learner(config, choice, world, train_set, fresh=resumed is None)
    start = Position(epoch=config.start_epoch)
    if resumed:
        state = world.together(lambda: resumed.learner(world.rank))
        strategy.load_state_dict(state["strategy"])
        _set_random_state(state["random"])
        start = resumed.position
    world.together(lambda: _make_folder(folder, config, world))
    if world.rank == 0:
        _announce(config, strategy, folder, start)
    metrics = Metrics(
        folder,
        world,
        strategy.traffic,
        every=config.log_every,
        steps_per_epoch=steps_per_epoch(len(train_set), world.size, local_batch),
        epochs=config.epochs,
        global_batch=config.global_batch,
        state=resumed.log if resumed else None,
    )

    def save_if_due(position: Position) -> None:
        if checkpoint.is_due(position, config.checkpoint, config.epochs):
            state = {"strategy": strategy.state_dict(), "random": _random_state()}
            keep = config.checkpoint.keep_last, config.checkpoint.keep_epochs
            checkpoint.save(folder, world, position, state, metrics.state_dict(), *keep)

    with closing(metrics):
        result = train(
            model,
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
            prefetch=config.prefetch,
        )
        write_summary(
            folder,
            strategy,
            metrics,
            result,
            classes=train_set.classes,
            global_batch=config.global_batch,
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
    model = world.together(lambda: config.model.build(MODELS, train_set.shape, train_set.classes))
    model.to(world.device, getattr(torch, config.dtype))
    initial = config.init_from
    if initial and fresh:
        world.together(lambda: _start_from(model, initial, world))
    same_start(model, world)

    def build() -> Strategy:
        optimizer = config.optimizer.build(OPTIMIZERS, model)
        strategy: Strategy = choice.build(STRATEGIES, model, optimizer, world, config.seed)
        return strategy

    strategy = world.together(build)
    strategy.clip_norm = config.clip_norm
    if config.weight_noise.std:
        noise = config.weight_noise
        strategy = WeightNoise(strategy, noise.std, noise.reading, config.seed)
    # Each learner draws its own dropout masks; the data order has a generator of its own.
    torch.manual_seed(config.seed + 1 + world.rank)
    return model, strategy


def _resumed(folder: Path, config: Config, world: World, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; refuses a folder that is in the way."""
    if not (folder / "config.yaml").exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"--out {folder}: not empty and not a run; give another folder")
        return None
    if not resume:
        raise UserError(f"--out {folder}: holds a run; add --resume or give another folder")
    before = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in config.plain().items():
        if key not in MAY_CHANGE and before.get(key) != value:
            raise UserError(
                f"--resume: {key} was {before.get(key)} in {folder} and is {value} now; "
                "only " + ", ".join(sorted(MAY_CHANGE)) + " may change"
            )
    found = checkpoint.newest(folder)
    if found is None:
        return None
    if found.learners != world.size:
        raise UserError(
            f"--resume: {found.folder} is of {found.learners} learners, this job has {world.size}; "
            "start that many, or a new run with init_from"
        )
    if found.position.epoch >= config.epochs:
        raise UserError(f"--resume: {folder} has finished its {config.epochs} epochs; raise epochs")
    return found


def _make_folder(folder: Path, config: Config, world: World) -> None:
    if world.rank:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / "config.yaml")
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
        epochs = yaml.safe_load((folder / "config.yaml").read_text())["epochs"]
        before = config.schedule.build(SCHEDULES, config.global_batch, epochs)
        begun = resumed.position.epoch + bool(resumed.position.step)
        if not agree_until(begun, schedule, before):
            raise UserError(
                f"--resume: epochs was {epochs} in {folder} and is {config.epochs} now, and the "
                f"rates of schedule.name={config.schedule.name} so far depend on it; keep epochs"
            )
    return schedule


def _start_from(model: nn.Module, reference: str, world: World) -> None:
    """Loads the consensus of another run on rank 0, from where every learner will get it."""
    if world.rank:
        return
    state = checkpoint.consensus_state(checkpoint.at_epoch(*checkpoint.parse_reference(reference)))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"init_from={reference}: another network: {reason}") from None


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _announce(config: Config, strategy: Strategy, folder: Path, start: Position) -> None:
    world = strategy.world
    parameters = strategy.weights.size
    here = f"{world.node.size} of them on this node"
    print(f"run {folder}: {' '.join(map(shlex.quote, sys.argv[1:]))}")
    print(f"{world.size} learners, {here}, on {world.device.type}; {strategy.describe()}")
    if config.clip_norm:
        print(f"gradients clipped to norm {config.clip_norm:g}")
    print(
        f"{config.model.name}: {parameters:,} weights ({4 * parameters / 2**20:.2f} MiB as float32)"
        f"; global batch {config.global_batch}"
    )
    if start.steps:
        print(f"resumed after {start.steps} updates, in epoch {start.epoch + 1}")
    sys.stdout.flush()
