"""`hpcddl bench loader`: reading shards, as ratios to what memory can do and to other ways."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcddl.bench.h5py_workers import h5py_workers
from hpcddl.bench.noise_set import FRAMES, drop_pages, write_noise
from hpcddl.bench.timing import interleaved
from hpcddl.common.errors import UserError
from hpcddl.data.block_order import BlockShuffle
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import contiguous_batches, epoch_permutation, rank_batches
from hpcddl.data.shards import Shards, open_split

_WORKERS = 2
_COLD_REPEATS = 3
_WORKER_REPEATS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench loader`."""
    parser.description = (
        "Writes a temporary shard set and measures, in turns and repeatedly, one core's memcpy, "
        "np.take of random rows from an array in RAM (float16: widened by torch), the loader in "
        "exact order, in blocks and in sequence, with the page cache warm and cold, and torch's "
        f"DataLoader with {_WORKERS} workers that read by h5py."
    )
    parser.epilog = "example: hpcddl bench loader --dim 260 --dtype float16 --json"
    add = parser.add_argument
    add("--dim", type=int, default=140, help="features per frame; 140 and 260 are the paper's")
    add("--windows", type=int, default=20000, help="windows of 21 frames in the temporary set")
    add("--batch", type=int, default=256, help="windows per batch")
    add("--dtype", choices=("float16", "float32"), default="float32", help="stored features")
    add("--depth", type=int, default=3, help="batches prefetched; 0: no thread")
    add("--block", type=int, default=512, help="windows per block of the block shuffle")
    add("--buffer", type=int, default=4096, help="windows in its buffer")
    add("--repeats", type=int, default=15, help="epochs of each; the best counts")
    add("--dir", type=Path, help="where to put the temporary set, if not in $TMPDIR")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    lowest = {"dim": 1, "batch": 1, "depth": 0, "repeats": 1, "windows": 1, "block": 1, "buffer": 0}
    for name, low in lowest.items():
        if getattr(arguments, name) < low:
            raise UserError(f"--{name}: {getattr(arguments, name)}, allowed: at least {low}")
    if arguments.windows < arguments.batch:
        raise UserError(f"--windows: {arguments.windows}, allowed: at least --batch")
    try:
        with tempfile.TemporaryDirectory(prefix="hpcddl-bench-", dir=arguments.dir) as folder:
            result = measure(
                Path(folder),
                dimension=arguments.dim,
                windows=arguments.windows,
                batch=arguments.batch,
                dtype=arguments.dtype,
                depth=arguments.depth,
                shuffle=BlockShuffle(arguments.block, arguments.buffer),
                repeats=arguments.repeats,
            )
    except OSError as error:
        raise UserError(f"--dir: {arguments.dir}: {error.strerror}") from None
    print(json.dumps(result) if arguments.json else _text(result))
    return 0


def measure(
    folder: Path,
    *,
    dimension: int,
    windows: int,
    batch: int,
    dtype: str,
    depth: int,
    shuffle: BlockShuffle,
    repeats: int,
) -> dict[str, Any]:
    """The best of some epochs each, as rates and ratios; null where nothing can be made cold.

    All bring batches of float32, and only the loader and its rival bring labels, too. np.take and
    memcpy write to buffers like those of the loader's ring, on huge pages and as many. `one_core`,
    `sequential` and `blocks` have no prefetch thread; `loader` has it, and with nothing else to do
    for the consumer two cores; so have the cold ones.
    """
    ram = write_noise(folder, dimension, windows, dtype)
    steps = windows // batch
    tasks = {
        **_memory_tasks(ram, open_split(folder, "train"), batch, depth),
        **_loader_tasks(folder, batch, depth, shuffle),
    }
    seconds = interleaved(tasks, repeats)
    # What has mapped the shards, or is forked from what has, keeps them in memory.
    tasks.clear()
    seconds["h5py_workers"] = _h5py_seconds(open_split(folder, "train"), batch)
    seconds.update(_cold_seconds(folder, batch, depth, shuffle))
    size = steps * batch * FRAMES * dimension * 4
    ratios = [
        ("take", "memcpy"),
        ("one_core", "memcpy"),
        ("one_core", "take"),
        ("loader", "memcpy"),
        ("loader", "take"),
        ("blocks", "sequential"),
        ("cold_blocks", "cold_sequential"),
        ("loader", "h5py_workers"),
    ]
    rates = {name: steps * batch / value for name, value in seconds.items() if name != "memcpy"}
    return {
        "dimension": dimension,
        "windows": windows,
        "batch": batch,
        "dtype": dtype,
        "depth": depth,
        "block": shuffle.block,
        "buffer": shuffle.buffer,
        "repeats": repeats,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.node(),
        "memcpy_gib_per_second": size / seconds["memcpy"] / 2**30,
        **{f"{name}_windows_per_second": rate for name, rate in rates.items()},
        **{
            f"{one}/{other}": seconds[other] / seconds[one] if one in seconds else None
            for one, other in ratios
        },
    }


def _memory_tasks(
    ram: NDArray, shards: Shards, batch: int, depth: int
) -> dict[str, Callable[[int], None]]:
    windows, steps = len(ram), len(ram) // batch
    outs = [shards.buffers(batch)[0] for _ in range(depth + 1)]
    half = ram.dtype == np.float16
    rows_out = np.empty((batch, *ram.shape[1:]), ram.dtype)
    # Two sources: np.take must not find in the cache what memcpy has just read.
    wide = torch.from_numpy(ram).float().numpy() if half else ram.copy()

    def memcpy(epoch: int) -> None:
        for step in range(steps):
            rows = slice(step * batch, (step + 1) * batch)
            np.copyto(outs[step % len(outs)].numpy(), wide[rows])

    def take(epoch: int) -> None:
        for step, rows in enumerate(_exact(windows, batch, epoch)):
            out = outs[step % len(outs)]
            np.take(ram, rows, axis=0, out=rows_out if half else out.numpy(), mode="clip")
            if half:
                out.copy_(torch.from_numpy(rows_out))

    return {"memcpy": memcpy, "take": take}


def _exact(windows: int, batch: int, epoch: int) -> Iterator[NDArray]:
    return rank_batches(epoch_permutation(windows, 0, epoch), rank=0, ranks=1, batch=batch)


def _loader_tasks(
    folder: Path, batch: int, depth: int, shuffle: BlockShuffle
) -> dict[str, Callable[[int], None]]:
    exact = open_split(folder, "train")
    blocks = open_split(folder, "train", shuffle=shuffle)
    inline = Prefetcher(exact, "cpu", 0)
    return {
        "one_core": partial(_load, inline, partial(_order, exact, batch)),
        "loader": partial(_load, Prefetcher(exact, "cpu", depth), partial(_order, exact, batch)),
        "sequential": partial(_load, inline, partial(_sequence, exact, batch)),
        "blocks": partial(_load, Prefetcher(blocks, "cpu", 0), partial(_order, blocks, batch)),
    }


def _order(shards: Shards, batch: int, epoch: int) -> Iterable[NDArray]:
    return shards.order(0, epoch, rank=0, ranks=1, batch=batch)


def _sequence(shards: Shards, batch: int, epoch: int) -> Iterable[NDArray]:
    whole = len(shards) // batch * batch
    return contiguous_batches(whole, rank=0, ranks=1, batch=batch)


def _load(prefetcher: Prefetcher, order: Callable[[int], Iterable[NDArray]], epoch: int) -> None:
    for _ in prefetcher.batches(order(epoch)):
        pass


def _h5py_seconds(shards: Shards, batch: int) -> float:
    """Best epoch after one that starts the workers."""
    loader = h5py_workers(shards, batch, _WORKERS)
    seconds = []
    for _ in range(1 + _WORKER_REPEATS):
        began = time.perf_counter()
        for _ in loader:
            pass
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _cold_seconds(folder: Path, batch: int, depth: int, shuffle: BlockShuffle) -> dict[str, float]:
    """Best seconds of epochs from disk, or nothing where pages cannot be dropped."""
    orders = {"cold_sequential": (None, _sequence), "cold_blocks": (shuffle, _order)}
    seconds: dict[str, list[float]] = {name: [] for name in orders}
    for epoch in range(_COLD_REPEATS):
        for name, (kind, order) in orders.items():
            shards = open_split(folder, "train", verify=False, shuffle=kind)
            prefetcher = Prefetcher(shards, "cpu", depth)
            if not drop_pages(folder):
                return {}
            began = time.perf_counter()
            _load(prefetcher, partial(order, shards, batch), epoch)
            seconds[name].append(time.perf_counter() - began)
            # Else the next one's pages stay mapped, and warm.
            del shards, prefetcher
    return {name: min(values) for name, values in seconds.items()}


def _text(result: dict[str, Any]) -> str:
    def rate(name: str) -> str:
        return f"{result[f'{name}_windows_per_second']:>12,.0f} windows/s"

    ceiling = "np.take from RAM" + (" + copy_" if result["dtype"] == "float16" else "")
    lines = [
        f"{result['windows']} windows of {FRAMES} x {result['dimension']}, {result['dtype']}, "
        f"batches of {result['batch']}, {result['cores']} cores, {result['machine']}",
        f"one core's memcpy       {result['memcpy_gib_per_second']:.1f} GiB/s",
        f"{ceiling:<24}{rate('take')}, {result['take/memcpy']:.2f} of memcpy",
    ]
    for name, label in (("one_core", "exact, one core"), ("loader", "exact, with its thread")):
        lines.append(
            f"{label:<24}{rate(name)}, {result[f'{name}/take']:.2f} of {ceiling}, "
            f"{result[f'{name}/memcpy']:.2f} of memcpy"
        )
    lines.append(
        f"{'blocks, one core':<24}{rate('blocks')}, {result['blocks/sequential']:.2f} of "
        f"sequential reading"
    )
    if result["cold_blocks/cold_sequential"] is None:
        lines.append(
            "cold                    not measured: the pages of this folder stay in memory"
        )
    else:
        lines.append(
            f"{'blocks, cold':<24}{rate('cold_blocks')}, "
            f"{result['cold_blocks/cold_sequential']:.2f} of sequential reading, cold"
        )
    lines.append(
        f"{f'h5py, {_WORKERS} workers':<24}{rate('h5py_workers')}; exact with its thread is "
        f"{result['loader/h5py_workers']:.1f} times faster"
    )
    return "\n".join(lines)
