"""Shortens a recipe to two epochs of one step each that use every part of the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcddl.cluster.world import World
from hpcddl.common.options import Choice
from hpcddl.optimizers.schedules import SCHEDULES
from hpcddl.run.config import Config, dotted
from hpcddl.run.learner import switching

SAMPLES = 2  # of a learner's micro-batch: batch norm needs more than one


def shorten(config: Config, world: World, data: Path, own_batch: bool) -> Config:
    """`config` on the set in `data`, whose training split is one global batch.

    Everything that begins later in the whole run begins with the second epoch: the end of a
    warm-up, the decay of the rate, a strategy's second phase. By then the learners have averaged
    at least once, within blocks and among all. Options that ask for more learners than there are
    ask for as many as there are.

    Args:
        own_batch: keep the global batch; otherwise it is SAMPLES per learner and micro-batch.

    Raises:
        UserError: schedule and strategy of the whole run contradict each other.
    """
    whole = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    switching(config.strategy, whole)
    second = config.start_epoch + 1
    changed: dict[str, Any] = {
        "epochs": second + 1,
        "data": _with(config.data, path=str(data), fingerprint=None),
        "schedule": _schedule(config.schedule, config.epochs, second),
        "strategy": _strategy(config.strategy, second, world),
        "checkpoint": config.checkpoint.model_copy(update={"every_epochs": 1, "every_steps": 0}),
    }
    if not own_batch:
        changed["global_batch"] = SAMPLES * config.accumulate * world.size
    if "batches" in config.batch_norm.options:
        batches = min(config.batch_norm.options["batches"], world.size)
        changed["batch_norm"] = _with(config.batch_norm, batches=batches)
    emulated = config.links.emulate
    if emulated:
        slow = {learner: by for learner, by in emulated.slow.items() if learner < world.size}
        emulated = emulated.model_copy(update={"slow": slow})
        changed["links"] = config.links.model_copy(update={"emulate": emulated})
    return config.model_copy(update=changed)


def changes(config: Config, short: Config) -> list[str]:
    """Lists what differs in `short`, apart from its length, as `key=value instead of value`."""
    found = []
    for section in ("strategy", "batch_norm", "links"):
        before, now = (dotted(c.plain()[section], section) for c in (config, short))
        later = {"strategy.after", "strategy.warmup_epochs"}
        found += [
            f"{key}={now.get(key)} instead of {value}"
            for key, value in before.items()
            if now.get(key) != value and key not in later
        ]
    return found


def _with(choice: Choice, **options: Any) -> Choice:
    return Choice(choice.name, {**choice.options, **options})


def _schedule(schedule: Choice, epochs: int, second: int) -> Choice:
    options = dict(schedule.options)
    if options.get("fractions"):
        options["milestones"] = [fraction * epochs for fraction in options["fractions"]]
        options["fractions"] = None
    if options.get("milestones"):
        options["milestones"] = sorted({min(at, float(second)) for at in options["milestones"]})
    return _warmed_up(Choice(schedule.name, options), second)


def _strategy(strategy: Choice, second: int, world: World) -> Choice:
    options = _warmed_up(strategy, second).options
    if isinstance(options.get("after"), int | float):
        options["after"] = min(options["after"], second)
    # One step is left to those who change their ways after the first, or have two ways to agree.
    several = options.get("after") or options.get("block_steps", 1) > 1 or options.get("delayed")
    for name, most in (("steps", 1 if several else 2), ("block_steps", 2)):
        if name in options:
            options[name] = min(options[name], most)
    topology = options.get("topology")
    if topology is not None and "neighbours" in topology.options:
        most = max(1, _mixing(options["super_learners"], world) // 2)
        neighbours = min(topology.options["neighbours"], most)
        options["topology"] = _with(topology, neighbours=neighbours)
    return Choice(strategy.name, options)


def _warmed_up(choice: Choice, second: int) -> Choice:
    if "warmup_epochs" not in choice.options:
        return Choice(choice.name, dict(choice.options))
    return _with(choice, warmup_epochs=min(choice.options["warmup_epochs"], float(second)))


def _mixing(super_learners: Any, world: World) -> int:
    """Counts the learners, or super-learners, that mix."""
    if super_learners == "none":
        return world.size
    return -(-world.size // (world.node.size if super_learners == "node" else super_learners))
