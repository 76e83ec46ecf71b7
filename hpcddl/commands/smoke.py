"""`hpcddl train RECIPE --smoke`: checks that a recipe runs here, without its data.

Two epochs of one step each, on random samples of the data's shape and classes. After the first
epoch's checkpoint the run is stopped and resumed, as a job that reaches its time limit is.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from mpi4py import MPI

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.common.leftovers import make_temporary_folder
from hpcddl.data.known import Contents, contents
from hpcddl.data.stand_in import write_stand_in
from hpcddl.run.config import Config
from hpcddl.run.fit import fit
from hpcddl.run.records import read_run
from hpcddl.run.shorten import SAMPLES, changes, shorten
from hpcddl.run.stopping import Notice, Stopped


def smoke(recipe: str, config: Config, world: World, began: float, own_batch: bool) -> int:
    """Returns exit status 0 if both steps were taken and all losses are finite; prints a line.

    Collective; `own_batch` keeps the config's global batch.

    Raises:
        UserError: the recipe cannot be run here, or nowhere.
    """
    path = config.data.options["path"]
    of = world.together(lambda: contents(path))
    with temporary_folder(world) as folder:
        short = world.together(lambda: shorten(config, world, folder / "data", own_batch))
        result = rehearse(short, of, world, folder, began)
    peak = world.comm.allreduce(_peak_bytes(world.device), MPI.MAX)
    if world.rank == 0:
        print(_verdict(recipe, config, short, path, of, result, peak), flush=True)
    return int(None in result["losses"])


def rehearse(
    short: Config, of: Contents, world: World, folder: Path, began: float
) -> dict[str, Any]:
    """Runs `short` in `folder`/run; returns its summary as `summary_of` reads it. Collective.

    The data is made in `folder`/data. The run's own output is hidden: after two steps on random
    samples it could only say that nothing was learned.
    """
    samples = {"train": short.global_batch, "heldout": SAMPLES * world.size}
    if of.kind == "text":
        bptt = short.data.options["bptt"]
        samples = {split: windows * bptt + 1 for split, windows in samples.items()}
    if world.rank == 0:
        write_stand_in(folder / "data", of, samples)
    run = folder / "run"

    def stop() -> None:
        raise Stopped

    world.comm.Barrier()  # the data is there
    with redirect_stdout(StringIO()):
        with suppress(Stopped):
            fit(short, world, run, Notice(), began=began, saved=stop)
        fit(short, world, run, Notice(), began=began, go_on=True)
    return world.comm.bcast(summary_of(run) if world.rank == 0 else None)


@contextmanager
def temporary_folder(world: World) -> Iterator[Path]:
    """Makes a folder that every rank sees, and removes it afterwards. Collective.

    Raises:
        UserError: it cannot be made, or is not visible from every node.
    """
    # Of several nodes, what all see is most likely where the job was started.
    here = None if world.node.size == world.size else Path(".")

    def make() -> Path:
        try:
            return make_temporary_folder(here, "hpcddl-smoke")
        except OSError as error:
            raise UserError(f"--smoke: no temporary folder: {error}") from None

    folder = world.on_rank_zero(make)

    def look() -> None:
        if not folder.is_dir():
            raise UserError(f"--smoke: {folder.resolve()}: not seen from every node")

    try:
        world.together(look)
        yield folder
    finally:
        if world.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def summary_of(run: Path) -> dict[str, Any]:
    """Reads a run's summary, with `seconds_per_step` and all `losses` (None: not finite) added."""
    found = read_run(run)
    steps = [record["seconds"] for record in found.training]
    parts = ("forward_backward", "communicate", "optimizer")
    losses = [record["loss"] for record in found.training]
    losses += [record["heldout_loss"] for record in found.evaluations]
    # A run that has diverged ends after its first.
    seconds = sum(steps[-1][part] - (steps[0][part] if steps[1:] else 0) for part in parts)
    return {**found.summary, "seconds_per_step": seconds, "losses": losses}


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this process has used: of its GPU, or of the host without a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _verdict(
    recipe: str,
    config: Config,
    short: Config,
    path: str,
    of: Contents,
    result: dict[str, Any],
    peak: int,
) -> str:
    if None in result["losses"]:
        return f"smoke {recipe}: failed: {result['diverged_since']['reason']}"
    shape = f"{'x'.join(map(str, of.shape))}, " if of.shape else ""
    done = (
        f"smoke {recipe}: passed: {result['updates']} steps of {short.global_batch} samples on "
        f"{result['learners']} learners, each evaluated and checkpointed, the second resumed; "
        f"random samples as {path} ({shape}{of.classes:,} classes); {result['parameters']:,} "
        f"weights, {result['seconds_per_step']:.3g} s a step, at most {peak / 2**30:.2f} GiB a "
        "learner"
    )
    changed = changes(config, short)
    return f"{done}; {', '.join(changed)}" if changed else done
