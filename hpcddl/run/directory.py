"""A run's directory while this job trains in it: locked, with the checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError, warn
from hpcddl.data.identity import Fingerprint
from hpcddl.run import intact, resume
from hpcddl.run.config import Config, save_config
from hpcddl.run.run_lock import RunLock, reaches_all_nodes


class RunDirectory:
    """One run's folder; `resumed` is the checkpoint to go on from, None at a run's beginning."""

    def __init__(self, path: Path, lock: RunLock, search: intact.Search, world: World) -> None:
        self.path, self.lock, self.resumed = path, lock, search.found
        self.restarts = resume.restarts(search.found, world)
        """Each change of the number of learners so far."""
        self.data: Fingerprint = None
        """The fingerprint of the data set, from `begin` on."""
        self._search, self._world = search, world

    @property
    def told(self) -> dict[str, Any]:
        """What checkpoints say of the run beside its numbers."""
        return {"restarts": self.restarts, "data": self.data}

    def begin(self, config: Config) -> None:
        """Makes the folder, unless it is there, and writes the run's config to it. Collective.

        Raises:
            AgreedError: it cannot be written; another job has begun there meanwhile.
        """
        world = self._world
        self.data = config.data.options["fingerprint"]
        world.on_rank_zero(lambda: self._make(config))
        if not reaches_all_nodes(self.lock.path, world) and world.rank == 0:
            warn(
                f"--out {self.path}: a job on another node would not be refused: locks do not "
                "reach it"
            )

    def _make(self, config: Config) -> None:
        folder = self.path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            begun = self.lock.taken
            self.lock.take()
            if not begun:
                resume.check(folder, config, go_on=False)  # another job may have been faster
            intact.tidy(folder, self._search.faults)
            save_config(config, folder / "config.yaml")
            # Of fewer epochs: where there is a summary, the run has ended by itself.
            (folder / "summary.json").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"--out {folder}: cannot be written: {error.strerror}") from None


@contextmanager
def opened(
    folder: Path, config: Config, world: World, go_on: bool
) -> Iterator[RunDirectory | None]:
    """Locks `folder` and finds the checkpoint to go on from; None of a finished run. Collective.

    Args:
        go_on: whether there may be a run in the folder.

    Raises:
        AgreedError: the folder is in the way, is another run's, has no whole checkpoint, or
            another job trains there.
    """
    begun, ended = world.on_rank_zero(lambda: _found(folder, config, go_on))
    if ended:
        if world.rank == 0:
            print(f"run {folder} has finished: {folder}/summary.json; to go on, raise epochs")
        yield None
        return
    with closing(RunLock(folder)) as lock:
        search = intact.Search(None, {})
        if begun:
            world.on_rank_zero(lock.take)
            search = resume.find(folder, config, world)
        yield RunDirectory(folder, lock, search, world)


def _found(folder: Path, config: Config, go_on: bool) -> tuple[bool, bool]:
    """Whether there is a run in `folder`, and whether it has ended."""
    begun = resume.check(folder, config, go_on)
    return begun, begun and resume.has_ended(folder, config)
