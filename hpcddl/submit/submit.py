"""`hpcddl submit`: jobs of a Slurm cluster that prepare, train, sweep or report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import hpcddl
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.recipes import name_of
from hpcddl.submit.job import Job, sbatch_words
from hpcddl.submit.site import sbatch_options, site_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hpcddl submit`."""
    parser.description = (
        "Submit jobs to Slurm: a recipe trains, a sweep trains its runs as an array, `prep` packs "
        "a Kaldi experiment as an array, `report` reports on runs. Prints the id of the job that "
        "comes last; `hpcddl jobs` shows how far they are."
    )
    parser.epilog = (
        "example: hpcddl submit --site puhti --nodes 4 swb300.dpsgd strategy.topology=ring; "
        "prep=$(hpcddl submit --array 16 prep -- --data data/train --ali exp/tri4_ali "
        "--out shards/swb300) && hpcddl submit --after $prep --report a.table4"
    )
    add = parser.add_argument
    add("what", help="a recipe, a sweep, `prep` or `report`")
    add(
        "words",
        nargs="*",
        metavar="key=value",
        help="settings of the recipe; for prep, after --, the options of `hpcddl prep kaldi`; for "
        "report, the runs and, after --, its options",
    )
    add("--site", help="a cluster's file: jobs/sites/NAME.sh, or another with a / in its name")
    add(
        "--nodes", type=at_least(1), help="nodes of a job (default: two, or as a sweep's runs need)"
    )
    add("--array", help="prep: how many jobs (default 16); a sweep: which runs, as 0-3,7 or 0-9%%2")
    add("--after", action="append", default=[], metavar="JOB", help="start when JOB has succeeded")
    add(
        "--chain",
        type=at_least(1),
        default=1,
        metavar="N",
        help="N jobs one after the other, each continues the runs",
    )
    add("--report", action="store_true", help="also submit a last job that reports on the runs")
    add("--out", help="the run directory, or that of a sweep's runs (default: runs/NAME)")
    add(
        "--stage",
        metavar="DIR",
        help="first copy the data to DIR on every node; `site`: the nodes' local disk",
    )
    add(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of sbatch's, such as --sbatch=--time=08:00:00",
    )
    add("--dry-run", action="store_true", help="only print the command lines")


def run(arguments: argparse.Namespace) -> int:
    """Submits the jobs in their order, or prints how."""
    scripts = Path(hpcddl.__file__).parent.parent / "jobs"
    if not scripts.is_dir():
        raise UserError(f"{scripts}: not there; install hpcddl from its folder: pip install -e .")
    site = site_file(arguments.site, scripts / "sites") if arguments.site else None
    jobs = _jobs(arguments, scripts, site.read_text() if site else "")
    if arguments.dry_run:
        numbers = [f"JOB{place}" for place in range(1, len(jobs) + 1)]
        for job in jobs:
            print(shlex.join(sbatch_words(job, scripts, site, numbers)))
        return 0
    _submit(jobs, scripts, site)
    return 0


def _submit(jobs: Sequence[Job], scripts: Path, site: Path | None) -> None:
    # Imported here, as below: --help must not wait for pydantic and torch.
    from hpcddl.submit import slurm
    from hpcddl.submit.plan import OUTPUT
    from hpcddl.submit.written import write_down

    # Slurm does not make it, and would lose the jobs' output.
    Path(OUTPUT).mkdir(exist_ok=True)
    ids: list[str] = []
    for job in jobs:
        words = sbatch_words(job, scripts, site, ids)
        ids.append(slurm.submit(words))
        line = write_down(job, ids[-1], words)
        print(f"{job.kind} {job.name}: job {ids[-1]}, output {line.output}", file=sys.stderr)
    print(ids[-1])


def _jobs(arguments: argparse.Namespace, scripts: Path, site: str) -> list[Job]:
    _keep_mpi_asleep()
    from hpcddl.submit.plan import Wishes, prep_jobs, report_jobs, sweep_jobs, train_jobs
    from hpcddl.sweeps.definition import expand, read_sweep

    a = arguments
    kind = _kind(a.what)
    _check(a, kind)
    script = (scripts / f"{kind}.sbatch").read_text()
    wishes = Wishes(
        defaults=sbatch_options(script, kind),
        options=(*sbatch_options(site, kind), *a.sbatch),
        nodes=a.nodes,
        after=tuple(a.after),
        chain=a.chain,
        report=a.report,
        report_options=sbatch_options(site, "report"),
    )
    if kind == "prep":
        return prep_jobs(wishes, a.words, int(a.array or 16))
    if kind == "report":
        return report_jobs(wishes, a.words)
    folder = a.out or f"runs/{name_of(a.what)}"
    stage = ["--stage", a.stage] if a.stage else []
    if kind == "sweep":
        sweep = read_sweep(a.what)
        runs = expand(sweep, tuple(a.words))
        words = [*a.words, *stage]
        return sweep_jobs(wishes, a.what, words, runs, sweep.learners, folder, a.array)
    _check_recipe(a.what, a.words, *wishes.size())
    return train_jobs(wishes, a.what, [*a.words, *stage], folder)


def _kind(what: str) -> str:
    """Which batch script; a YAML file with axes in it is a sweep."""
    from hpcddl.sweeps.definition import names

    if what in ("prep", "report"):
        return what
    is_file = what.endswith((".yaml", ".yml")) and Path(what).is_file()
    text = Path(what).read_text() if is_file else ""
    is_sweep = "\naxes:" in f"\n{text}" or what in names()
    return "sweep" if is_sweep else "train"


def _check(arguments: argparse.Namespace, kind: str) -> None:
    """Refuses options that would be passed over."""
    trains = {"nodes": None, "chain": 1, "report": False, "out": None, "stage": None}
    for option, default in trains.items():
        if kind in ("prep", "report") and getattr(arguments, option) != default:
            raise UserError(f"--{option}: only for a recipe or a sweep (after -- for {kind}'s own)")
    array = arguments.array
    if array and kind in ("train", "report"):
        raise UserError(f"--array {array}: only for prep and sweeps")
    if array and kind == "prep" and not (array.isdigit() and int(array) > 0):
        raise UserError(f"--array {array}: must be how many jobs pack, such as 16")
    if not all(before.isdigit() for before in arguments.after):
        raise UserError(f"--after {' '.join(arguments.after)}: must be a job's number")


def _check_recipe(recipe: str, overrides: Sequence[str], nodes: int, per_node: int) -> None:
    """What would otherwise fail after a day in the queue."""
    from hpcddl.run.config import load_config

    batch, learners = load_config(recipe, overrides).global_batch, nodes * per_node
    if batch % learners:
        raise UserError(
            f"global_batch={batch}: must be a multiple of the {learners} learners "
            f"({nodes} nodes of {per_node})"
        )


def _keep_mpi_asleep() -> None:
    """A recipe is checked by its code, which imports MPI; login nodes may not let it start."""
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
