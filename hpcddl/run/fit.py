"""From a Config to a finished run directory, on all ranks."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hpcddl.cluster.emulate import emulated
from hpcddl.cluster.world import World
from hpcddl.run.agreement import agreeing
from hpcddl.run.announce import announce
from hpcddl.run.config import Config
from hpcddl.run.directory import opened
from hpcddl.run.metrics import Metrics
from hpcddl.run.saver import Saver
from hpcddl.run.set_up import set_up
from hpcddl.run.stopping import Notice
from hpcddl.run.summary import write_summary
from hpcddl.training.evaluate import Interrupted
from hpcddl.training.loop import train
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
    world.check_same({**config.same(), "run directory": folder})
    if config.links.emulate:
        emulation, real = config.links.emulate, world
        world = world.together(lambda: emulated(real, emulation))
    with opened(folder, config, world, go_on) as directory:
        if directory is None:
            return
        resumed = directory.resumed
        config = world.together(config.identified)
        world.check_same(config.same())
        task = set_up(config, world, directory, node_folder)
        directory.begin(config)
        announce(config, task, folder, resumed)
        metrics = Metrics(folder, task, config.log_every, resumed.log if resumed else None)
        with closing(metrics), agreeing(world.comm) as agreement:
            saver = Saver(directory, task, metrics, agreement, notice, config.checkpoint, saved)
            start = resumed.position if resumed else Position(epoch=config.start_epoch)
            try:
                result = train(task, metrics, start, saver, notice.given)
            except Interrupted:
                saver.stop()
            saver.ended()
            restarts = directory.restarts
            write_summary(folder, task, metrics, result, restarts=restarts, began=began)
