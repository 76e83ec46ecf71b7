"""The learning rate of a recipe over its epochs, as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.common.colours import COLOURS
from hpcddl.common.picture_file import picture_file
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run.config import Config

RATE, WARMUP, DECAY = COLOURS[0], COLOURS[4], COLOURS[1]


def draw_schedule(config: Config, name: str, path: Path) -> None:
    """Draws the rate, the warm-up as a shaded span and the first decay as a line.

    Raises:
        UserError: a suffix that is not a picture's; a path that cannot be written.
    """
    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    with picture_file(path, "--plot", (8, 4.5), dpi=150) as figure:
        axis = figure.subplots()
        _draw(axis, schedule, config.epochs)
        axis.set_title(
            f"{Path(name).name}: {config.schedule.name} schedule, "
            f"global batch {config.global_batch:,}, {config.epochs} epochs",
            parse_math=False,
        )


def _draw(axis: Any, schedule: Schedule, epochs: int) -> None:
    at = np.linspace(0, epochs, 4000, endpoint=False)
    axis.plot(at, [schedule(epoch) for epoch in at], color=RATE, linewidth=2, label="learning rate")
    warmup = min(schedule.warmup_epochs, epochs)
    if warmup:
        axis.axvspan(
            0,
            warmup,
            color=WARMUP,
            alpha=0.2,
            linewidth=0,
            label=f"warm-up, {schedule.base:.3g} to {schedule.scaled:.3g}",
        )
    if schedule.first_decay is not None and schedule.first_decay < epochs:
        axis.axvline(
            schedule.first_decay,
            color=DECAY,
            linestyle="--",
            label=f"first decay, epoch {schedule.first_decay:g}",
        )
    axis.set_xlim(0, epochs)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("epoch")
    axis.set_ylabel("learning rate")
    axis.grid(alpha=0.3)
    axis.legend(loc="best")
