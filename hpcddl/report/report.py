"""`hpcddl report`: one page about finished and unfinished runs, for screen and paper."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hpcddl.common.errors import UserError, warn
from hpcddl.common.files import write_whole
from hpcddl.report import curves, sheets, time_bars
from hpcddl.report.page import render
from hpcddl.report.picture import Picture
from hpcddl.report.printed import printed
from hpcddl.report.target import COLUMNS, Target, parse_target, target_head, target_rows
from hpcddl.run.records import Run, common_parent, names, read_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl report`."""
    parser.description = (
        "Write one HTML page about finished and unfinished runs: results beside the papers' "
        "numbers, curves, cost, noise, results of `hpcddl analyze`, and the commands. Pictures "
        "(PDF) and numbers (CSV) are written beside it."
    )
    parser.epilog = "example: hpcddl report runs/ssgd runs/dpsgd --target loss=2"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "--target",
        metavar="loss=X|accuracy=Y",
        help="also show what each run needed to reach this, and the speed-up over a single learner",
    )
    parser.add_argument(
        "--begun",
        action="store_true",
        help="leave out, with a warning, runs that have not begun (their jobs failed early)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write; default: report, beside the runs"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the page and its files; the page is written last."""
    folders = _begun(arguments.runs) if arguments.begun else arguments.runs
    runs = [read_run(folder, unfinished=True) for folder in folders]
    for name, count in Counter(names(runs)).items():
        if count > 1:
            raise UserError(f"run {name}: given twice")
    target = parse_target(arguments.target) if arguments.target else None
    out = arguments.out or common_parent(runs) / "report"
    write_page(runs, target, out, time.time())
    print(f"{out / 'index.html'}")
    return 0


def _begun(folders: Sequence[Path]) -> list[Path]:
    """Keeps the runs that have begun, which is that they have a log.

    Raises:
        UserError: none has one.
    """
    begun = [folder for folder in folders if (folder / "metrics.jsonl").is_file()]
    if not begun:
        raise UserError("no run has begun")
    for folder in folders:
        if folder not in begun:
            warn(f"run {folder}: has not begun; left out")
    return begun


def write_page(runs: Sequence[Run], target: Target | None, out: Path, now: float) -> None:
    """Writes index.html, figures/*.pdf and *.csv to `out`; replaces those of an earlier report.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        if (out / "index.html").exists():
            for old in (*(out / "figures").glob("*.pdf"), out / "target.csv"):
                old.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    paper = printed(runs)
    bars = time_bars.draw(runs)
    sections = {
        "learning": list(curves.draw(runs, curves.LEARNING)),
        "cost": [*curves.draw(runs, curves.COST), *([bars] if bars else [])],
        "noise": list(curves.draw(runs, curves.NOISE)),
        "solutions": _solutions(runs),
    }
    reached = None
    files = {
        "runs.csv": sheets.results(runs, paper, now),
        "settings.csv": sheets.settings(runs),
        "evaluations.csv": sheets.records(runs, "evaluations"),
        "training.csv": sheets.records(runs, "training"),
        "diagnostics.csv": sheets.records(runs, "diagnostics"),
    }
    if target:
        found = zip(names(runs), target_rows(runs, target), strict=True)
        files["target.csv"] = [list(COLUMNS), *([name, *row[1:]] for name, row in found)]
        reached = target_head(runs, target), files["target.csv"]
    for name, table in files.items():
        sheets.write(table, out / name)
    for pictures in sections.values():
        for picture in pictures:
            picture.write_pdf(out / "figures")
    html = render(runs, paper, sections, reached, list(files), now)
    write_whole(out / "index.html", html.encode())


def _solutions(runs: Sequence[Run]) -> list[Picture]:
    """Draws the results of analyses, if there are any."""
    folders = {run.folder / "analysis" for run in runs}
    folders |= {run.folder.parent / what for run in runs for what in ("landscape", "curvature")}
    if not any(folder.is_dir() for folder in folders):
        return []
    from hpcddl.report import analysis_pictures  # it loads torch and MPI, which take seconds

    return list(analysis_pictures.draw(runs))
