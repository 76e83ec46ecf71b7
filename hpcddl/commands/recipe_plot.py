"""The learning rate of a recipe over its epochs, as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from hpcddl.common.errors import UserError
from hpcddl.optimizers.schedules import SCHEDULES, Schedule
from hpcddl.run.config import Config

RATE, WARMUP, DECAY = "#0072B2", "#E69F00", "#D55E00"  # Wong (2011)


def draw_schedule(config: Config, name: str, path: Path) -> None:
    """Draws the rate, the warm-up as a shaded span and the first decay as a line.

    Raises:
        UserError: a suffix that is not a picture's; a path that cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    schedule: Schedule = config.schedule.build(SCHEDULES, config.global_batch, config.epochs)
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    try:
        known = figure.canvas.get_supported_filetypes()
        if path.suffix[1:] not in known:
            raise UserError(f"--plot {path}: must end in one of {', '.join(sorted(known))}")
        _draw(axis, schedule, config.epochs)
        axis.set_title(
            f"{Path(name).name}: {config.schedule.name} schedule, "
            f"global batch {config.global_batch:,}, {config.epochs} epochs",
            parse_math=False,
        )
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--plot {path}: {error.strerror}") from None
    finally:
        plt.close(figure)


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
