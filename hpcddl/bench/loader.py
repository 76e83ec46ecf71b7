"""`hpcddl bench loader`: random exact access to shards, as ratios to what memory can do."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.sampler import epoch_permutation, rank_batches
from hpcddl.data.shard_writer import ShardSetWriter
from hpcddl.data.shards import open_split
from hpcddl.errors import UserError

_FRAMES = 21
_CLASSES = 1000
_SHARDS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench loader`."""
    parser.description = (
        "Writes a temporary shard set and measures, in turns and repeatedly, one core's memcpy, "
        "np.take of random rows from an array in RAM, and the loader: epoch permutation, gather "
        "from mapped shards and prefetch thread, with the page cache warm."
    )
    parser.epilog = "example: hpcddl bench loader --dim 260 --dtype float16 --json"
    add = parser.add_argument
    add("--dim", type=int, default=140, help="features per frame; 140 and 260 are the paper's")
    add("--windows", type=int, default=20000, help="windows of 21 frames in the temporary set")
    add("--batch", type=int, default=256, help="windows per batch")
    add("--dtype", choices=("float16", "float32"), default="float32", help="stored features")
    add("--depth", type=int, default=3, help="batches prefetched; 0: no thread")
    add("--repeats", type=int, default=15, help="epochs of each; the best counts")
    add("--dir", type=Path, help="where to put the temporary set, if not in $TMPDIR")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    for name, low in (("dim", 1), ("batch", 1), ("depth", 0), ("repeats", 1), ("windows", 1)):
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
                repeats=arguments.repeats,
            )
    except OSError as error:
        raise UserError(f"--dir: {arguments.dir}: {error.strerror}") from None
    if arguments.json:
        print(json.dumps(result))
        return 0
    ratio = {name: float(value) for name, value in result.items() if "/" in name}
    print(
        f"{result['windows']} windows of {_FRAMES} x {result['dimension']}, {result['dtype']}, "
        f"batches of {result['batch']}, {result['cores']} cores, {result['machine']}"
    )
    print(f"one core's memcpy     {result['memcpy_gib_per_second']:8.1f} GiB/s")
    print(f"np.take from RAM      {ratio['take/memcpy']:8.2f} of memcpy")
    for name, label in (("one_core", "loader on one core"), ("loader", "loader with its thread")):
        print(
            f"{label:<22}{ratio[f'{name}/take']:8.2f} of np.take from RAM, "
            f"{ratio[f'{name}/memcpy']:.2f} of memcpy, "
            f"{result[f'{name}_windows_per_second']:,.0f} windows/s"
        )
    return 0


def measure(
    folder: Path, *, dimension: int, windows: int, batch: int, dtype: str, depth: int, repeats: int
) -> dict[str, str | int | float]:
    """The best of some epochs each, as rates and ratios.

    All bring the same batches of float32: np.take and the loader random rows in the order of an
    epoch's permutation, memcpy consecutive ones. np.take and memcpy write to buffers like those of
    the loader's ring, on huge pages and as many. Only the loader brings labels, too. On one core
    (`one_core`) it has no thread; with it, and nothing else to do for the consumer, it has two.
    """
    ram = _write(folder, dimension, windows, dtype)
    shards = open_split(folder, "train")
    outs = [shards.buffers(batch)[0].numpy() for _ in range(depth + 1)]
    # Two sources: np.take must not find in the cache what memcpy has just read.
    other = ram.copy()
    steps = windows // batch

    def memcpy(epoch: int) -> None:
        for step in range(steps):
            np.copyto(outs[step % len(outs)], ram[step * batch : (step + 1) * batch])

    def take(epoch: int) -> None:
        for step, rows in enumerate(_epoch(windows, batch, epoch)):
            np.take(other, rows, axis=0, out=outs[step % len(outs)], mode="clip")

    def load(prefetcher: Prefetcher, epoch: int) -> None:
        count = sum(1 for _ in prefetcher.batches(_epoch(windows, batch, epoch)))
        assert count == steps

    loaders = {
        "one_core": partial(load, Prefetcher(shards, "cpu", 0)),
        "loader": partial(load, Prefetcher(shards, "cpu", depth)),
    }
    seconds = _interleaved({"memcpy": memcpy, "take": take, **loaders}, repeats)
    size = steps * batch * _FRAMES * dimension * 4
    return {
        "dimension": dimension,
        "windows": windows,
        "batch": batch,
        "dtype": dtype,
        "depth": depth,
        "repeats": repeats,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "machine": platform.node(),
        "memcpy_gib_per_second": size / seconds["memcpy"] / 2**30,
        "take/memcpy": seconds["memcpy"] / seconds["take"],
        **{f"{name}_windows_per_second": steps * batch / seconds[name] for name in loaders},
        **{f"{name}/memcpy": seconds["memcpy"] / seconds[name] for name in loaders},
        **{f"{name}/take": seconds["take"] / seconds[name] for name in loaders},
    }


def _epoch(windows: int, batch: int, epoch: int) -> Iterable[NDArray]:
    return rank_batches(epoch_permutation(windows, 0, epoch), rank=0, ranks=1, batch=batch)


def _interleaved(tasks: dict[str, Callable[[int], None]], repeats: int) -> dict[str, float]:
    """Best seconds of each task; in turns, so that a slow moment of the machine meets them all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for name in tasks:
        tasks[name](0)  # warm: page cache, page tables, buffers
    for epoch in range(1, repeats + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task(epoch)
            seconds[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in seconds.items()}


def _write(folder: Path, dimension: int, windows: int, dtype: str) -> NDArray[np.float32]:
    """Writes the shard set and returns its features as an array in RAM."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((windows, _FRAMES, dimension), dtype=np.float32)
    labels = rng.integers(0, _CLASSES, (windows, _FRAMES), dtype=np.int32)
    zeros = np.zeros(windows, np.int32)
    writer = ShardSetWriter(
        folder,
        frames=_FRAMES,
        features=dimension,
        classes=_CLASSES,
        dtype=dtype,
        windows={"train": windows},
        windows_per_shard=-(-windows // _SHARDS),
    )
    for begin in range(0, windows, 1024):
        rows = slice(begin, begin + 1024)
        writer.append("train", features[rows], labels[rows], zeros[rows], zeros[rows])
    writer.finish(
        utterances={"train": ["noise"]},
        speakers={"train": ["none"]},
        utterance_speaker={"train": [0]},
        provenance={"tool": "hpcddl bench loader"},
        counts={},
    )
    return features
