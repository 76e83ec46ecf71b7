"""How a run shows itself while it trains: TensorBoard, and a progress bar or plain lines."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

PLAIN_LINE_SECONDS = 15.0  # off a terminal: a line at most this often between evaluations


class Board:
    """The same scalars as TensorBoard events; the heavy import waits for the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Adds every number in `values` at `step`."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Events after the step at which a run is resumed are not shown twice.
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(f"{kind}/{name}", value, step)
            elif isinstance(value, dict):
                for part, number in value.items():
                    self._writer.add_scalar(f"{name}/{part}", number, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file, if one was begun."""
        if self._writer is not None:
            self._writer.close()


class Display:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, steps_per_epoch: int, epochs: int) -> None:
        self._steps_per_epoch, self._epochs = steps_per_epoch, epochs
        self._last_line = time.monotonic()
        self._watched = _terminal()
        self._bar: tqdm | None = None  # made at the first step, which may be a resumed run's

    def step(self, epoch: int, step: int, loss: float, rate: float) -> None:
        """Shows the progress after `step` steps of `epoch`."""
        text = f"loss {loss:.4f}, rate {rate:.4g}"
        done = epoch * self._steps_per_epoch + step
        if self._watched:
            if self._bar is None:
                total = self._steps_per_epoch * self._epochs
                self._bar = tqdm(total=total, initial=done, unit="step")
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.n = done
            self._bar.refresh()
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            where = f"epoch {epoch + 1}/{self._epochs}, step {step}/{self._steps_per_epoch}"
            self.line(f"{where}: {text}")

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _terminal() -> bool:
    """Whether somebody watches standard error.

    mpirun gives its ranks pipes and forwards them to its own standard error, so under a launcher
    the parent's counts.
    """
    if sys.stderr.isatty():
        return True
    if not {"PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():
        return False
    try:
        shown = os.readlink(f"/proc/{os.getppid()}/fd/2")
    except OSError:  # another user's launcher, as under Slurm, or no /proc
        return False
    return shown.startswith(("/dev/pts/", "/dev/tty"))
