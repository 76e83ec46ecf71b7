"""Prints what a run is about to train."""

import shlex
import sys
from pathlib import Path

from hpcddl.cluster.setting import describe_setting
from hpcddl.run import resume
from hpcddl.run.checkpoint import Checkpoint
from hpcddl.run.config import Config
from hpcddl.training.task import Task


def announce(config: Config, task: Task, folder: Path, resumed: Checkpoint | None) -> None:
    """Says what is about to be trained, on what, how, and where it goes on: rank 0. Collective."""
    strategy = task.strategy
    world = strategy.world
    setting = describe_setting(world)
    if world.rank:
        return
    parameters = strategy.weights.size
    here = f"{world.node.size} of them on this node"
    print(f"run {folder}: {' '.join(map(shlex.quote, sys.argv[1:]))}")
    print(*setting, sep="\n")
    print(f"{world.size} learners, {here}, on {world.device.type}; {strategy.describe()}")
    if config.clip_norm:
        print(f"gradients clipped to norm {config.clip_norm:g}")
    if config.gradient_noise.eta:
        noise = config.gradient_noise
        print(f"gradient noise of variance {noise.eta:g} / (1 + t)^{noise.gamma:g}")
    if config.links.emulate:
        print("emulated links: seconds are those of links.emulate")
    if config.autocast:
        scaled = f", loss scaled from {strategy.loss_scale.value:g}" if strategy.loss_scale else ""
        print(f"mixed precision: products in {config.autocast}, weights in float32{scaled}")
    print(
        f"{config.model.name}: {parameters:,} weights ({4 * parameters / 2**20:.2f} MiB as float32)"
        f"; global batch {config.global_batch}"
    )
    if resumed:
        print(resume.describe(resumed, world, config.epochs, task.train_set.contiguous))
    sys.stdout.flush()
