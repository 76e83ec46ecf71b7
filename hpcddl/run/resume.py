"""How a run goes on: exactly, or on another number of learners from the consensus of those before.

Dropout masks are drawn from each learner's own generator, whose state is in its checkpoint; a
restart draws new ones. What a resumed run may change about its config is checked here too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mpi4py.util import pkl5

from hpcddl.cluster.world import AgreedError, World
from hpcddl.common.errors import UserError, warn
from hpcddl.common.options import Choice
from hpcddl.data.identity import check_fingerprint
from hpcddl.data.manifest import MANIFEST
from hpcddl.models import hidden_state
from hpcddl.optimizers.schedules import SCHEDULES, Schedule, agree_until
from hpcddl.run import checkpoint, intact, own_code, run_lock
from hpcddl.run.checkpoint import Checkpoint
from hpcddl.run.config import Config, load_config
from hpcddl.run.state import read_state
from hpcddl.strategies.base import Strategy

# A resumed run may be lengthened, watched differently and computed by other kernels, to rounding;
# all else would make another run of it.
MAY_CHANGE = {
    "description",
    "epochs",
    "checkpoint",
    "diagnostics",
    "log_every",
    "prefetch",
    "channels_last",
    "compile",
}


def check(folder: Path, config: Config, go_on: bool) -> bool:
    """Whether there is a run in `folder`, which is `config`'s.

    Raises:
        UserError: the folder is in the way, or its run was another than `config`.
    """
    if not (folder / "config.yaml").exists():
        # A lock alone is what a job leaves that ends before its run begins.
        if folder.exists() and any(path.name != run_lock.NAME for path in folder.iterdir()):
            raise UserError(f"--out {folder}: not empty and not a run; give another folder")
        return False
    if not go_on:
        raise UserError(f"--out {folder}: holds a run; add --resume or give another folder")
    before = _config_before(folder)
    _refuse_other_data(before.data, config.data)
    own_code.check_unchanged(before.plain(), config.plain(), folder)
    was, now = own_code.canonical(before.plain()), own_code.canonical(config.plain())
    was["data"] = _without_place(before.data)
    now["data"] = _without_place(config.data)
    for key, value in now.items():
        if key not in MAY_CHANGE and was[key] != value:
            raise UserError(
                f"--resume: {key} was {was[key]} in {folder} and is {value} now; "
                "only " + ", ".join(sorted(MAY_CHANGE)) + " may change"
            )
    own_code.warn_of_changes(now, folder)
    return True


def _refuse_other_data(before: Choice, now: Choice) -> None:
    """Refuses another data set than the run's; the same one may lie elsewhere.

    Raises:
        UserError: the fingerprints differ; of a run that has none, the folders.
    """
    path, was = now.options["path"], before.options["path"]
    fingerprint = before.options["fingerprint"]
    if fingerprint is None and Path(path).resolve() != Path(was).resolve():
        raise UserError(
            f"--resume: data.path was {was} and is {path} now, and the run is from a version that "
            "kept no fingerprint of its data; must be the same folder"
        )
    # A run that has ended needs its data no more, and it may be gone.
    if path != was or (Path(path) / MANIFEST).exists():
        check_fingerprint(path, fingerprint)


def _without_place(data: Choice) -> dict[str, Any]:
    return {key: v for key, v in data.plain().items() if key not in ("path", "fingerprint")}


def find(folder: Path, config: Config, world: World) -> intact.Search:
    """The newest whole checkpoint of the run in `folder`, None for a start; warns. Collective.

    Raises:
        AgreedError: all are damaged, or the run is beyond `config`.
    """
    search = intact.newest_intact(folder, world)
    found = search.found
    if found and checkpoint.reached(found) > (config.epochs, 0):
        raise AgreedError(
            f"--resume: epochs={config.epochs}: {found.folder} is beyond them; raise epochs",
            world.rank,
        )
    if found and world.rank == 0:
        for fault in search.faults.values():
            warn(f"{fault}; going on from {found.folder.name}")
    return search


def has_ended(folder: Path, config: Config) -> bool:
    """Whether the run in `folder` has come to its end, and `config` asks for no more epochs."""
    return read_state(folder).ended and _config_before(folder).epochs == config.epochs


def check_rates(schedule: Schedule, config: Config, resumed: Checkpoint, folder: Path) -> None:
    """Refuses other epochs where the rates so far were meant for those before.

    Raises:
        UserError: `schedule` was another one up to here.
    """
    epochs = _config_before(folder).epochs
    before = config.schedule.build(SCHEDULES, config.global_batch, epochs)
    begun = resumed.position.epoch + bool(resumed.position.step)
    if not agree_until(begun, schedule, before):
        raise UserError(
            f"--resume: epochs was {epochs} in {folder} and is {config.epochs} now, and the "
            f"rates of schedule.name={config.schedule.name} so far depend on it; keep epochs"
        )


def learner_state(strategy: Strategy) -> dict[str, Any]:
    """All that this learner needs to go on, as if it had never stopped."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    random = {"cpu": torch.get_rng_state(), "cuda": cuda}
    hidden = hidden_state.state_list(strategy.model)
    return {"strategy": strategy.state_dict(), "hidden": hidden, "random": random}


def restore(strategy: Strategy, resumed: Checkpoint, seed: int) -> None:
    """Takes up a checkpoint: this learner's own, or for other learners their consensus. Collective.

    Raises:
        UserError: a learner's file is missing or altered.
    """
    world = strategy.world
    if resumed.learners == world.size:
        state = world.together(lambda: resumed.learner(world.rank))
        strategy.load_state_dict(state["strategy"])
        hidden_state.load_state_list(strategy.model, state["hidden"])
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"])
        return
    # One rank reads for all: every file is read once, and all learners get the same bits.
    mean = world.together(lambda: checkpoint.consensus_state(resumed) if world.rank == 0 else None)
    # pkl5: a state may have more than the 2 GiB that a plain bcast takes.
    strategy.load_state_dict(pkl5.Intracomm(world.comm).bcast(mean))
    # Not the seeds of a run's start, whose dropout masks have been used.
    key = [seed, resumed.position.steps, world.rank, world.size]
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def restarts(resumed: Checkpoint | None, world: World) -> list[dict[str, int]]:
    """Each change of the number of learners in the run so far, this process's included."""
    if resumed is None:
        return []
    before: list[dict[str, int]] = resumed.log["restarts"]
    if resumed.learners == world.size:
        return before
    change = {
        "updates": resumed.position.steps,
        "from_learners": resumed.learners,
        "to_learners": world.size,
    }
    return [*before, change]


def describe(resumed: Checkpoint, world: World, epochs: int, contiguous: bool) -> str:
    """One line for the log: where the run goes on, and what is not as if it had never stopped."""
    at = resumed.position
    where = f"in epoch {at.epoch + 1}" if at.epoch < epochs else "with the last evaluation"
    if resumed.learners == world.size:
        return f"resumed after {at.steps} updates, {where}"
    order = f"; this epoch's batches stay those of {at.learners} learners" if at.step else ""
    if at.step and contiguous:
        order += ", hidden states start from zeros"
    return (
        f"restarted from the consensus of {resumed.learners} learners after {at.steps} updates, "
        f"{where}: momentum meaned, learners' random state new{order}"
    )


def _config_before(folder: Path) -> Config:
    """The run's own; what its version did not know yet has its default."""
    return load_config(str(folder / "config.yaml"))
