"""`hpcddl bench loader`: reading shards, as ratios to what memory can do and to other ways.

Writes a temporary shard set and measures, in turns and repeatedly, one core's memcpy, np.take of
random rows from an array in RAM (float16: widened by torch), the loader in exact order, in blocks
and in sequence, with the page cache warm and cold, and torch's DataLoader with 2 workers that read
by h5py.

example: hpcddl bench loader --dim 260 --dtype float16 --json
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from math import isnan, nan
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpcddl.bench import benchmark as bench
from hpcddl.bench.noise_set import FRAMES, drop_pages, h5py_workers, write_noise
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError
from hpcddl.data.block_order import BlockShuffle
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import contiguous_batches, epoch_permutation, rank_batches
from hpcddl.data.shards import Shards, open_split

_WORKERS = 2
_COLD_REPEATS = 3
_WORKER_REPEATS = 2
RATIOS = (
    ("take", "memcpy"),
    ("one_core", "memcpy"),
    ("one_core", "take"),
    ("loader", "memcpy"),
    ("loader", "take"),
    ("blocks", "sequential"),
    ("cold_blocks", "cold_sequential"),
    ("loader", "h5py_workers"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench loader`."""
    add, one, none = bench.describe(parser, __doc__), at_least(1), at_least(0)
    add("--dim", type=one, default=140, help="features per frame; 140 and 260 are the paper's")
    add("--windows", type=one, default=20000, help="windows of 21 frames in the temporary set")
    add("--batch", type=one, default=256, help="windows per batch")
    add("--dtype", choices=("float16", "float32"), default="float32", help="stored features")
    add("--depth", type=none, default=3, help="batches prefetched; 0: no thread")
    add("--block", type=one, default=512, help="windows per block of the block shuffle")
    add("--buffer", type=none, default=4096, help="windows in its buffer")
    add("--repeats", type=one, default=15, help="epochs of each; the best counts")
    add("--dir", type=Path, help="where to put the temporary set, if not in $TMPDIR")


def measure(
    *,
    dim: int,
    windows: int,
    batch: int,
    dtype: str,
    depth: int,
    block: int,
    buffer: int,
    repeats: int,
    dir: Path | None,
) -> bench.Result:
    """Takes the best of some epochs each, as rates and ratios; null where no page gets cold.

    All bring batches of float32, and only the loader and its rival bring labels, too. np.take and
    memcpy write to buffers like those of the loader's ring, on huge pages and as many. `one_core`,
    `sequential` and `blocks` have no prefetch thread; `loader` has it, and with nothing else to do
    for the consumer two cores; so have the cold ones.
    """
    if windows < batch:
        raise UserError(f"--windows: {windows}: must be at least --batch, {batch}")
    shuffle = BlockShuffle(block, buffer)
    with bench.temporary_folder(dir) as folder:
        ram = write_noise(folder, dim, windows, dtype)
        tasks = {
            **_memory_tasks(ram, open_split(folder, "train"), batch, depth),
            "one_core": _epochs(folder, batch, 0, count()),
            "loader": _epochs(folder, batch, depth, count()),
            "sequential": _epochs(folder, batch, 0),
            "blocks": _epochs(folder, batch, 0, count(), shuffle),
        }
        best = bench.best(bench.in_turns(tasks, repeats, bench.seconds))
        # What has mapped the shards, or is forked from what has, keeps them in memory.
        tasks.clear()
        best |= _worker_seconds(folder, batch)
        best |= _cold_seconds(folder, batch, depth, shuffle)
    samples = windows // batch * batch
    rates = {name: samples / value for name, value in best.items() if name != "memcpy"}
    return {
        "dimension": dim,
        "windows": windows,
        "batch": batch,
        "dtype": dtype,
        "depth": depth,
        "block": block,
        "buffer": buffer,
        "repeats": repeats,
        **bench.machine(),
        "memcpy_gib_per_second": samples * FRAMES * dim * 4 / best["memcpy"] / 2**30,
        **{f"{name}_windows_per_second": rate for name, rate in rates.items()},
        **{
            f"{one}/{other}": best[other] / best[one] if one in best else None
            for one, other in RATIOS
        },
    }


def _memory_tasks(ram: NDArray, shards: Shards, batch: int, depth: int) -> dict[str, bench.Work]:
    """Makes what copies all windows in order, and at random, into a ring of buffers."""
    windows, steps, ring = len(ram), len(ram) // batch, depth + 1
    outs = [shards.buffers(batch)[0] for _ in range(ring)]
    half = ram.dtype == np.float16
    rows_out = np.empty((batch, *ram.shape[1:]), ram.dtype)
    # Two sources: np.take must not find in the cache what memcpy has just read.
    wide = torch.from_numpy(ram).float().numpy() if half else ram.copy()
    epochs = count()

    def memcpy() -> None:
        for step in range(steps):
            rows = slice(step * batch, (step + 1) * batch)
            np.copyto(outs[step % ring].numpy(), wide[rows])

    def take() -> None:
        order = epoch_permutation(windows, 0, next(epochs))
        for step, rows in enumerate(rank_batches(order, rank=0, ranks=1, batch=batch)):
            out = outs[step % ring]
            np.take(ram, rows, axis=0, out=rows_out if half else out.numpy(), mode="clip")
            if half:
                out.copy_(torch.from_numpy(rows_out))

    return {"memcpy": memcpy, "take": take}


def _epochs(
    folder: Path,
    batch: int,
    depth: int,
    epochs: Iterator[int] | None = None,
    shuffle: BlockShuffle | None = None,
) -> bench.Work:
    """Opens the set, and makes what reads the next of `epochs`; without them, all in sequence."""
    shards = open_split(folder, "train", verify=False, shuffle=shuffle)
    prefetcher = Prefetcher(shards, "cpu", depth)

    def read() -> None:
        if epochs is None:
            whole = len(shards) // batch * batch
            order: Iterable[NDArray] = contiguous_batches(whole, rank=0, ranks=1, batch=batch)
        else:
            order = shards.order(0, next(epochs), rank=0, ranks=1, batch=batch)
        _exhaust(prefetcher.batches(order))

    return read


def _exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def _worker_seconds(folder: Path, batch: int) -> dict[str, float]:
    """Takes the best epoch of torch's workers, which end with this function."""
    batches = h5py_workers(open_split(folder, "train"), batch, _WORKERS)
    tasks = {"h5py_workers": lambda: _exhaust(batches)}
    return bench.best(bench.in_turns(tasks, _WORKER_REPEATS, bench.seconds))


def _cold_seconds(folder: Path, batch: int, depth: int, shuffle: BlockShuffle) -> dict[str, float]:
    """Takes the best of epochs from disk, or nothing where pages cannot be dropped."""
    epochs = count()
    opening = {
        "cold_sequential": lambda: _epochs(folder, batch, depth),
        "cold_blocks": lambda: _epochs(folder, batch, depth, epochs, shuffle),
    }

    def turn(open_set: Callable[[], bench.Work]) -> float:
        read = open_set()  # and dropped with this turn: else the pages stay mapped, and warm
        return bench.seconds(read) if drop_pages(folder) else nan

    found = bench.best(bench.in_turns(opening, _COLD_REPEATS, turn, warm=0))
    return {} if any(map(isnan, found.values())) else found


def as_text(result: bench.Result) -> str:
    """Lays out a row per way of reading, with its speed in that of others."""
    in_memory = "np.take from RAM" + (" + copy_" if result["dtype"] == "float16" else "")
    names = {
        "take": in_memory,
        "one_core": "exact, one core",
        "loader": "exact, with its thread",
        "sequential": "sequential, one core",
        "blocks": "blocks, one core",
        "cold_sequential": "sequential, cold",
        "cold_blocks": "blocks, cold",
        "h5py_workers": f"h5py, {_WORKERS} workers",
    }
    rows: dict[str, dict[str, float]] = {
        label: {"rate": result[f"{name}_windows_per_second"]}
        for name, label in names.items()
        if f"{name}_windows_per_second" in result
    }
    for one, other in RATIOS:
        if names[one] in rows:
            rows[names[one]][other.removeprefix("cold_")] = result[f"{one}/{other}"]
    columns = [
        bench.Column("windows/s", "rate", ",.0f"),
        bench.Column("of memcpy", "memcpy", ".2f"),
        bench.Column(f"of {in_memory}", "take", ".2f"),
        bench.Column("of sequential", "sequential", ".2f"),
        bench.Column("of h5py", "h5py_workers", ".1f"),
    ]
    lines = [
        f"{result['windows']} windows of {FRAMES} x {result['dimension']}, {result['dtype']}, "
        f"batches of {result['batch']}, {result['cores']} cores, {result['machine']}",
        f"one core's memcpy: {result['memcpy_gib_per_second']:.1f} GiB/s; what is cold is compared "
        "with what is cold",
        *bench.table(rows, columns),
    ]
    if result["cold_blocks/cold_sequential"] is None:
        lines.append("cold: not measured: the pages of this folder stay in memory")
    return "\n".join(lines)


run = bench.command(measure, as_text)
