"""One learner of a run: its network, its optimizer and its strategy."""

from pathlib import Path
from re import fullmatch, search

import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.data import Dataset
from hpcddl.models import MODELS
from hpcddl.optimizers import OPTIMIZERS
from hpcddl.optimizers.gradient_step import GradientStep
from hpcddl.optimizers.loss_scale import LossScale
from hpcddl.optimizers.noise import GradientNoise
from hpcddl.optimizers.schedules import Schedule
from hpcddl.run import checkpoint
from hpcddl.run.config import Config
from hpcddl.strategies import STRATEGIES
from hpcddl.strategies.base import Strategy, same_start
from hpcddl.strategies.weight_noise import WeightNoise


def switching(strategy: Choice, schedule: Schedule) -> Choice:
    """Replaces the word `first_decay` in a strategy's options by its epoch in the schedule.

    Raises:
        UserError: a schedule without a decay.
    """
    if strategy.options.get("after") != "first_decay":
        return strategy
    if schedule.first_decay is None:
        raise UserError("strategy.after=first_decay: the schedule has no decay; give an epoch")
    return Choice(strategy.name, {**strategy.options, "after": schedule.first_decay})


def learner(
    config: Config, choice: Choice, world: World, train_set: Dataset, fresh: bool
) -> tuple[nn.Module, Strategy]:
    """The network and its strategy; all learners hold the same weights. Collective.

    Args:
        choice: of the strategy, with epochs only.
        fresh: a run's beginning, which takes the weights of `init_from`.

    Raises:
        UserError: what the recipe names does not fit together.
    """
    torch.manual_seed(config.seed)
    initial = config.init_from if fresh and world.rank == 0 else None
    model = world.together(lambda: _network(config, train_set, initial))
    model.to(world.device, getattr(torch, config.dtype))
    same_start(model, world)
    strategy = world.together(lambda: _strategy(config, choice, model, world))
    # Each learner draws its own dropout masks; the data order has a generator of its own.
    torch.manual_seed(config.seed + 1 + world.rank)
    return model, strategy


def _strategy(config: Config, choice: Choice, model: nn.Module, world: World) -> Strategy:
    """Builds the strategy with its local step; inside weight noise where the recipe has that."""
    gradient, weight = config.gradient_noise, config.weight_noise
    local = GradientStep(
        config.optimizer.build(OPTIMIZERS, model),
        clip_norm=config.clip_norm,
        noise=GradientNoise(gradient.eta, gradient.gamma, config.seed) if gradient.eta else None,
        loss_scale=LossScale() if config.autocast == "float16" else None,
    )
    strategy: Strategy = choice.build(STRATEGIES, model, local, world, config.seed)
    if local.loss_scale and not strategy.may_skip_steps:
        raise UserError(
            f"autocast=float16: strategy.name={choice.name} cannot do without a step of a "
            "learner whose gradient overflows; must be bfloat16"
        )
    if weight.std:
        return WeightNoise(strategy, weight.std, weight.reading, config.seed)
    return strategy


def parse_reference(text: str) -> tuple[Path, int]:
    """RUN@EPOCH as (folder, epoch).

    Raises:
        UserError: not of that form.
    """
    run, at, epoch = text.rpartition("@")
    if not at or not run or not fullmatch("[0-9]{1,18}", epoch):
        raise UserError(f"init_from={text!r}: must be RUN@EPOCH, such as runs/ssgd@16")
    return Path(run), int(epoch)


def _network(config: Config, train_set: Dataset, initial: str | None) -> nn.Module:
    """Builds the network; `initial` is a run whose consensus it takes over, None: random weights.

    One rank reads it: all others get its weights from there.
    """
    model = _built(config.model, train_set)
    takes_words = any(isinstance(module, nn.Embedding) for module in model.modules())
    if takes_words != train_set.contiguous:
        one, other = ("words", "numbers") if takes_words else ("numbers", "words")
        raise UserError(
            f"model.name={config.model.name}: takes {one}, data.name={config.data.name} has {other}"
        )
    if initial:
        _start_from(model, initial)
    return model


def _built(choice: Choice, train_set: Dataset) -> nn.Module:
    """Builds the network for the samples and classes of a data set.

    Raises:
        UserError: it does not take such samples, does not fit in memory, or has complex weights,
            which neither dtype nor messages hold.
    """
    try:
        model: nn.Module = choice.build(MODELS, train_set.shape, train_set.classes)
    except (MemoryError, OverflowError, RuntimeError) as error:
        # torch's allocator and its overflow of a size are RuntimeErrors like any other.
        reason = str(error)
        if isinstance(error, RuntimeError) and not search("alloc|overflow|too large", reason):
            raise
        raise UserError(
            f"model.name={choice.name}: must fit in memory with its options: "
            f"{' '.join(reason.split())}"
        ) from None
    if any(p.is_complex() for p in model.parameters()):
        raise UserError(f"model.name={choice.name}: has complex weights; must have real ones")
    return model


def _start_from(model: nn.Module, reference: str) -> None:
    """Loads the consensus of another run."""
    state = checkpoint.consensus_state(checkpoint.at_epoch(*parse_reference(reference)))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"init_from={reference}: another network: {reason}") from None
