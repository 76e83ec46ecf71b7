"""Loads a trained network from a run directory, on any number of ranks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.options import Choice
from hpcddl.data import DATASETS, Dataset
from hpcddl.data.identity import ANY, identified, with_fingerprint
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import steps_per_epoch
from hpcddl.models import MODELS
from hpcddl.run import checkpoint, own_code
from hpcddl.run.checkpoint import Checkpoint
from hpcddl.run.config import Config, load_config
from hpcddl.run.state import read_state
from hpcddl.strategies.base import same_start
from hpcddl.training.autocast import Autocast
from hpcddl.training.batch_norm import BATCH_NORM


@dataclass(frozen=True)
class Trained:
    """The consensus of a checkpoint's learners, and the data that its run was trained on.

    `model` has the weights in the run's dtype; `network` is the same with the run's autocast.
    """

    config: Config
    checkpoint: Checkpoint
    model: nn.Module
    network: nn.Module
    train_set: Dataset
    heldout: Dataset
    world: World

    @property
    def micro_batch(self) -> int:
        """Samples that a learner of the run processed at once."""
        local_batch = self.config.global_batch // self.checkpoint.learners
        return -(-local_batch // self.config.accumulate)

    @contextmanager
    def statistics(self) -> Iterator[None]:
        """Inside, batch norm has the statistics that the run was evaluated with. Collective.

        Recomputed ones are those of the same batches, whatever the number of ranks now.
        """
        learners, batch = self.checkpoint.learners, self.micro_batch
        local_batch = self.config.global_batch // learners
        steps = steps_per_epoch(len(self.train_set), learners, local_batch)
        recomputed = self.config.batch_norm.build(
            BATCH_NORM, self.model, self.config.model.name, steps * learners
        )
        if recomputed is None:
            yield
            return
        mine = (
            next(
                self.train_set.order(
                    *(self.config.seed, 0),
                    rank=number % learners,
                    ranks=learners,
                    batch=batch,
                    first_step=number // learners,
                )
            )
            for number in range(self.world.rank, recomputed.batches, self.world.size)
        )
        loader = Prefetcher(self.train_set, self.world.device, depth=0)
        with recomputed.inside(self.network, loader.batches(mine), self.world):
            yield


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options that name a network and its data."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    add_choice_arguments(parser)


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options that choose a checkpoint and the data."""
    parser.add_argument(
        "--epoch", type=int, help="the checkpoint after so many epochs; default: the newest"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="the data set, if it has moved since training"
    )
    parser.add_argument(
        "--other-data",
        action="store_true",
        help="take a data set with other samples than the run was trained on",
    )


def trained_of(arguments: argparse.Namespace, run: Path, world: World) -> Trained:
    """Loads the network of `run` at the epoch and with the data that the options name. Collective.

    Raises:
        UserError: as `load_trained`.
    """
    return load_trained(run, world, arguments.epoch, arguments.data, arguments.other_data)


def load_trained(
    run: Path,
    world: World,
    epoch: int | None = None,
    data: str | None = None,
    other_data: bool = False,
) -> Trained:
    """The consensus after `epoch` epochs, or the newest, in evaluation mode. Collective.

    Args:
        data: the folder of the run's data set where that has moved.
        other_data: whether the data set may be another than the run's.

    Raises:
        UserError: not a run directory, no such checkpoint, other data than the run's, or
            data that the network does not take.
    """
    config, found = world.together(lambda: _find(run, epoch, data, other_data))
    if world.rank == 0:
        own_code.warn_of_changes(config.plain(), run)
    world.check_same({**config.same(), "checkpoint": found.folder.name, **found.files})
    train_set, heldout = world.together(lambda: config.data.build(DATASETS))
    model = world.together(lambda: config.model.build(MODELS, train_set.shape, train_set.classes))
    model.to(world.device, getattr(torch, config.dtype))
    # One rank reads the files of all learners; the others get the same bits.
    world.together(lambda: _fill(model, found, config) if world.rank == 0 else None)
    same_start(model, world)
    model.eval()
    network = Autocast(model, getattr(torch, config.autocast)) if config.autocast else model
    return Trained(config, found, model, network.eval(), train_set, heldout, world)


def _find(
    run: Path, epoch: int | None, path: str | None, other_data: bool
) -> tuple[Config, Checkpoint]:
    if not (run / "config.yaml").is_file():
        raise UserError(f"run {run}: no config.yaml (not a run directory)")
    config = load_config(str(run / "config.yaml"))
    found = checkpoint.newest(run) if epoch is None else checkpoint.at_epoch(run, epoch)
    if found is None:
        diverged = read_state(run).word == "diverged"
        raise UserError(
            f"run {run}: no checkpoint{': it diverged before one' if diverged else ' yet'}"
        )
    data = config.data
    if path is not None:
        data = Choice(data.name, {**data.options, "path": path})
    wanted = ANY if other_data else found.data or data.options["fingerprint"]
    data = identified(with_fingerprint(data, wanted), "--data PATH of its own set, or --other-data")
    return config.model_copy(update={"data": data}), found


def _fill(model: nn.Module, found: Checkpoint, config: Config) -> None:
    state = checkpoint.consensus_state(found)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        path = config.data.options["path"]
        raise UserError(f"data {path}: not what {found.folder} was trained on: {reason}") from None
