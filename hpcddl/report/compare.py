"""`hpcddl compare`: several runs in one table and one picture."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpcddl.common.colours import COLOURS, STYLES
from hpcddl.common.picture_file import picture_file
from hpcddl.common.table import aligned
from hpcddl.report.sheets import state
from hpcddl.report.target import parse_target, target_table
from hpcddl.run.records import Run, read_run, training_seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl compare`."""
    parser.description = (
        "Compare finished runs: print a table, and draw held-out loss by epoch, time and bytes."
    )
    parser.epilog = "example: hpcddl compare runs/ssgd runs/dpsgd --out runs/comparison.png"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "--target",
        metavar="loss=X|accuracy=Y",
        help="also show what each run needed to reach this held-out loss or accuracy (0 to 1)",
    )
    parser.add_argument("--out", type=Path, help="the picture to draw (.png, .pdf or .svg)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; draws the picture if asked for."""
    runs = [read_run(folder) for folder in arguments.runs]
    target = parse_target(arguments.target) if arguments.target else None
    print(table(runs))
    if target:
        print(f"\n{target_table(runs, target)}")
    if arguments.out:
        draw(runs, arguments.out)
        print(f"\npicture: {arguments.out}")
    return 0


COLUMNS: dict[str, Callable[[Run], str]] = {
    "run": lambda r: str(r.folder),
    "strategy": lambda r: r.label,
    "learners": lambda r: str(r.summary["learners"]),
    "batch": lambda r: str(r.config["global_batch"]),
    "held-out loss": lambda r: _number(r.summary["heldout_loss"], "{:.4f}"),
    "best": lambda r: _number(r.summary["best_heldout_loss"], "{:.4f}"),
    "accuracy %": lambda r: _number(r.summary["heldout_accuracy"], "{:.2f}", 100),
    "state": lambda r: state(r, 0.0),  # they have ended, whatever the time
    "seconds": lambda r: _number(training_seconds(r.summary), "{:.1f}"),
    "MiB sent": lambda r: _number(r.summary["bytes_sent"], "{:.1f}", 2**-20),
}


def table(runs: Sequence[Run]) -> str:
    """One line per run in aligned columns, and what guessing would score below it."""
    rows = [list(COLUMNS), *([column(run) for column in COLUMNS.values()] for run in runs)]
    lines = aligned(rows, left=2)
    first = runs[0].summary
    lines.append(
        f"guessing by class frequency: loss {first['prior_loss']:.4f}, "
        f"accuracy {100 * first['prior_accuracy']:.2f} % of {first['classes']} classes; "
        "seconds without evaluation and checkpoints; MiB sent per learner"
    )
    return "\n".join(lines)


def legend(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its strategy, and its folder where several have the same one."""
    labels = [run.label for run in runs]
    return [
        (label if labels.count(label) == 1 else f"{label}: {run.folder.name}")
        + ("" if run.outcome == "done" else f" ({run.outcome})")
        for label, run in zip(labels, runs, strict=True)
    ]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Held-out loss of the consensus by epoch, by training seconds and by MiB sent per learner.

    Raises:
        UserError: a suffix that is not a picture's; a path that cannot be written.
    """
    axes_of: dict[str, Callable[[dict[str, Any]], float]] = {
        "epoch": lambda e: e["epoch"],
        "training time in seconds": training_seconds,
        "MiB sent per learner": lambda e: e["bytes_sent"] / 2**20,
    }
    with picture_file(path, "--out", (12, 4), dpi=150) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for axis, (label, value) in zip(axes, axes_of.items(), strict=True):
            for i, (run, name) in enumerate(zip(runs, legend(runs), strict=True)):
                finite = [e for e in run.evaluations if e["heldout_loss"] is not None]
                axis.plot(
                    [value(e) for e in finite],
                    [e["heldout_loss"] for e in finite],
                    color=COLOURS[i % len(COLOURS)],
                    linestyle=STYLES[i % len(STYLES)],
                    marker="o",
                    markersize=3,
                    label=name,
                )
            prior = runs[0].summary["prior_loss"]
            axis.axhline(prior, color="0.5", linewidth=1)
            axis.annotate(
                "guessing by class frequency",
                (0.98, prior),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color="0.4",
            )
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("held-out loss of the consensus (nats)")
        axes[0].legend(loc="best")
        config, learners = runs[0].config, runs[0].summary["learners"]
        figure.suptitle(
            f"{config['model']['name']}, global batch {config['global_batch']}, {learners} learners"
        )
        path.parent.mkdir(parents=True, exist_ok=True)


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(value * scale)
