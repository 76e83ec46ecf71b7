"""Curves of all runs, a picture for each quantity: loss, cost, and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from hpcddl.common.picture_file import pyplot
from hpcddl.report.looks import looks
from hpcddl.report.picture import Picture, add_legend, finished
from hpcddl.run.records import Record, Run, training_seconds

Value = Callable[[Record], float | None]
Points = list[tuple[float, float]]
FEW = 40
"""Points of a curve, up to which each is marked."""
FAR = 3
"""Times the greatest value of runs that learned: what goes beyond leaves the picture."""


def _value(key: str, factor: float = 1) -> Value:
    def value(record: Record) -> float | None:
        found = record.get(key)
        return None if found is None else factor * found

    return value


_EPOCH = _value("epoch")


@dataclass(frozen=True)
class Curves:
    """One picture: which values of which records are drawn; None is left out."""

    name: str
    about: str
    records: str  # evaluations, training or diagnostics
    y: Value
    y_label: str
    x: Value = _EPOCH
    x_label: str = "epoch"
    log: bool = False
    level: float | None = None  # a line to read the curves by

    def points(self, run: Run) -> Points:
        """Finds the points of one run: finite ones, on a logarithmic axis those above 0."""
        found = ((self.x(record), self.y(record)) for record in getattr(run, self.records))
        return [
            (x, y)
            for x, y in found
            if x is not None and y is not None and isfinite(y) and (y > 0 or not self.log)
        ]


def _relative_rate(record: Record) -> float | None:
    effective, rate = record["effective_rate"], record["learning_rate"]
    return None if effective is None or not rate else effective / rate


_HELDOUT = "held-out loss of the consensus (nats)"
LEARNING = (
    Curves(
        name="heldout-loss",
        about="Held-out loss of the consensus by epoch",
        records="evaluations",
        y=_value("heldout_loss"),
        y_label=_HELDOUT,
    ),
    Curves(
        name="heldout-accuracy",
        about="Held-out accuracy of the consensus by epoch",
        records="evaluations",
        y=_value("heldout_accuracy", 100),
        y_label="held-out accuracy (%)",
    ),
    Curves(
        name="training-loss",
        about="Training loss, meaned over the learners, by epoch",
        records="training",
        y=_value("loss"),
        y_label="training loss (nats)",
    ),
    Curves(
        name="learning-rate",
        about="Learning rate alpha by epoch",
        records="training",
        y=_value("learning_rate"),
        y_label=r"learning rate $\alpha$",
    ),
)
COST = (
    Curves(
        name="loss-by-seconds",
        about="Held-out loss by training time",
        records="evaluations",
        x=training_seconds,
        x_label="training time of rank 0 (s)",
        y=_value("heldout_loss"),
        y_label=_HELDOUT,
    ),
    Curves(
        name="loss-by-bytes",
        about="Held-out loss by what a learner has sent",
        records="evaluations",
        x=_value("bytes_sent", 2**-20),
        x_label="MiB sent per learner",
        y=_value("heldout_loss"),
        y_label=_HELDOUT,
    ),
)
NOISE = (
    Curves(
        name="effective-rate",
        about="Effective learning rate over the learning rate: 1 where steps follow the gradient",
        records="diagnostics",
        y=_relative_rate,
        y_label=r"$\alpha_e / \alpha$",
        level=1.0,
    ),
    Curves(
        name="noise",
        about="Noise Delta of an update",
        records="diagnostics",
        y=_value("noise"),
        y_label=r"noise $\Delta$",
        log=True,
    ),
    Curves(
        name="delta2",
        about="Delta2, the noise that learners add who hold different weights; SSGD has none",
        records="diagnostics",
        y=_value("delta2"),
        y_label=r"$\Delta^{(2)}$",
        log=True,
    ),
    Curves(
        name="consensus-distance",
        about="How far learners are from their consensus; SSGD's are not",
        records="diagnostics",
        y=_value("consensus_distance"),
        y_label=r"mean of $|w_j - w_a|^2$",
        log=True,
    ),
)


def draw(runs: Sequence[Run], pictures: Sequence[Curves]) -> Iterator[Picture]:
    """Those of `pictures` that any run has points for."""
    for curves in pictures:
        points = [curves.points(run) for run in runs]
        if any(points):
            yield _draw(runs, curves, points)


def _draw(runs: Sequence[Run], curves: Curves, points: Sequence[Points]) -> Picture:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5, 4.2), layout="constrained")
    top = None if curves.log else _top(runs, points)
    shown = []
    for run, look, found in zip(runs, looks(runs), points, strict=True):
        if not found:
            continue
        shown.append(look)
        x, y = zip(*found, strict=True)
        axis.plot(
            *(x, y),
            color=look.colour,
            linestyle=look.style,
            linewidth=look.width,
            marker="o" if len(x) <= FEW else None,
            markersize=3,
        )
        inside = [point for point in found if top is None or point[1] <= top]
        if run.summary["diverged"] and inside:
            axis.plot(*inside[-1], "x", color=look.colour, markersize=9, markeredgewidth=2)
    if top is not None:
        lowest = min(y for found in points for _, y in found)
        axis.set_ylim(lowest - 0.05 * (top - lowest), top)
    if curves.level is not None:
        axis.axhline(curves.level, color="0.5", linewidth=1)
    if curves.log:
        axis.set_yscale("log")
    axis.set_xlabel(curves.x_label)
    axis.set_ylabel(curves.y_label)
    axis.grid(alpha=0.3)
    add_legend(figure, shown)
    beyond = "" if top is None else f"; what is above {top:.3g} is cut off"
    return finished(figure, curves.name, curves.about + beyond)


def _top(runs: Sequence[Run], points: Sequence[Points]) -> float | None:
    """Where to cut the axis so that runs that learned nothing do not hide others; None: nowhere."""
    pairs = list(zip(runs, points, strict=True))
    calm = [y for run, found in pairs if run.outcome == "done" for _, y in found]
    greatest = max(calm, default=0.0)
    if greatest <= 0 or all(y <= FAR * greatest for _, found in pairs for _, y in found):
        return None
    return 1.5 * greatest
