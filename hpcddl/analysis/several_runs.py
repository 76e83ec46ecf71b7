"""What the analyses of several runs have in common: their options, names, folder and panels."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from hpcddl.analysis.directions import NORMALISE
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.common.study import StudyFolder
from hpcddl.run.trained import add_choice_arguments


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Adds RUN ... and the checkpoint and data of each."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    add_choice_arguments(parser)


def add_sample(parser: argparse.ArgumentParser, of: Sequence[str], samples: int) -> None:
    """Adds on which samples the loss is computed.

    Args:
        of: the data sets, the default first.
    """
    add = parser.add_argument
    add("--of", choices=of, default=of[0], help="data set of the loss")
    add(
        "--samples",
        type=at_least(1),
        default=samples,
        metavar="N",
        help="use at most N of its samples",
    )
    add("--batch", type=at_least(1), help="samples at once; default: the run's local batch")
    add(
        "--batch-norm",
        choices=("eval", "train"),
        default="eval",
        help="statistics for batch norm. eval: those of the consensus, at every point; train: "
        "those of each batch",
    )


def add_normalise(parser: argparse.ArgumentParser) -> None:
    """Adds --normalise, the length of random directions."""
    parser.add_argument(
        "--normalise",
        choices=NORMALISE,
        default="filter",
        help="length of a random direction. filter: each filter has the length of the network's "
        "own (Li et al. 2018), biases and normalisation layers stay as they are; none: N(0, 1) "
        "for every weight",
    )


def distinct_names(runs: Sequence[Path]) -> list[str]:
    """Names the runs by their folders, with parent folders where two names are the same.

    Raises:
        UserError: a run is given twice.
    """
    folders = [run.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"run {run}: given twice")
    if len({folder.name for folder in folders}) == len(folders):
        return [folder.name for folder in folders]
    common = os.path.commonpath([folder.parent for folder in folders])
    return ["-".join(folder.relative_to(common).parts) for folder in folders]


def default_folder(runs: Sequence[Path], analysis: str) -> Path:
    """Returns where results go: inside a single run, beside several."""
    return runs[0] / "analysis" / analysis if len(runs) == 1 else runs[0].parent / analysis


def samples_said(facts: Sequence[dict[str, Any]], names: dict[str, str]) -> str:
    """Says how many samples of which sets the runs' losses are of.

    Args:
        names: of train and heldout.
    """
    sets = {(f["of"], f["samples"], f["available_samples"]) for f in facts}
    return "; ".join(f"{n:,} of {all_:,} {names[of]} samples" for of, n, all_ in sorted(sets))


@contextmanager
def panels(
    folder: StudyFolder, name: str, count: int, height: float, below: str, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Yields a figure and its axes (lines, columns), one for each run, up to three in a line.

    Args:
        height: of a panel, in inches.
        below: the text below them.
        options: of matplotlib's `subplots`.
    """
    columns = min(count, 3)
    lines = ceil(count / columns)
    size = 4.2 * columns + 1.2, height * lines + 0.6
    picture = folder.picture(name, lines, columns, figsize=size, squeeze=False, **options)
    with picture as (figure, axes):
        for axis in axes.flat:
            axis.grid(visible=False)
        for axis in axes.flat[count:]:
            axis.set_visible(False)
        yield figure, axes
        write_below(figure, below)


def write_below(figure: Any, text: str) -> None:
    """Writes what was measured below the axes, in lines as long as the figure is wide."""
    width = int(figure.get_size_inches()[0] * 17)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=8)
