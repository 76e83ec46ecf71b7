"""`hpcddl bench prep`: packing against Kaldi's own reader merely decoding the same files."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.kaldi import kaldi
from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.jobs import Packer
from data_prep.kaldi.transition_model import read_transition_model
from data_prep.kaldi.write import (
    transition_model_bytes,
    write_compressed,
    write_double,
    write_ids,
)
from hpcddl.common.errors import UserError

_PHONES, _STATES = 40, 3
_SPEAKERS = 20
_DISTINCT = 100  # utterances; more are copies, so that a large corpus is written quickly
_ALIGNMENT_FILES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench prep`."""
    parser.description = (
        "Write a corpus of compressed features in Kaldi's format and measure, in turns, "
        "kaldi_native_io decoding all features, reading the alignments as pdf-ids, and packing "
        "with CMVN and deltas: in this process on one core, and by one and two processes."
    )
    parser.epilog = "example: hpcddl bench prep --dim 40 --mib 200 --json"
    add = parser.add_argument
    add("--dim", type=int, default=40, help="features per frame, before deltas")
    add("--mib", type=int, default=100, help="MiB of compressed features in the corpus")
    add("--repeats", type=int, default=3, help="repeats of each measurement; the best counts")
    add("--dir", type=Path, help="where to put the temporary files, if not in $TMPDIR")
    add("--corpus", type=Path, help="only write the corpus there, and keep it")
    add("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    for name, low in (("dim", 1), ("mib", 1), ("repeats", 1)):
        if getattr(arguments, name) < low:
            raise UserError(f"--{name}: {getattr(arguments, name)}, allowed: at least {low}")
    size = arguments.mib << 20
    if arguments.corpus is not None:
        try:
            arguments.corpus.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"--corpus: {arguments.corpus}: {error.strerror}") from None
        frames = write_corpus(arguments.corpus, arguments.dim, size)
        print(f"{arguments.corpus}: {frames} frames of {arguments.dim} features")
        return 0
    if importlib.util.find_spec("kaldi_native_io") is None:
        raise UserError("bench prep: compares with kaldi_native_io: pip install kaldi_native_io")
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="hpcddl-bench-", dir=arguments.dir) as folder:
            result = measure(Path(folder), arguments.dim, size, arguments.repeats)
    except OSError as error:
        raise UserError(f"--dir: {arguments.dir}: {error.strerror}") from None
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['frames']:,} frames of {arguments.dim} features, {result['cores']} cores, "
        f"{result['machine']}"
    )
    print(f"kaldi_native_io decodes {result['decode_frames_per_second'] / 1e6:8.1f} M frames/s")
    print(
        f"packing on one core     {result['pack_frames_per_second'] / 1e6:8.1f} M frames/s: "
        f"{result['pack/decode']:.2f} of it"
    )
    print(
        f"writing as many bytes   {result['write_frames_per_second'] / 1e6:8.1f} M frames/s: "
        f"{result['write/decode']:.2f} of it, the most that packing can be on this disk"
    )
    print(f"alignments to pdf-ids   {result['alignment_frames_per_second'] / 1e6:8.1f} M frames/s")
    print(f"two processes           {result['two/one']:8.2f} times one")
    return 0


def measure(folder: Path, dimension: int, size: int, repeats: int) -> dict[str, Any]:
    """The best of some repeats each, as rates and ratios.

    `write/decode` writes and syncs as many bytes as the set has. `pack/decode` is one process on
    one core, from the first pass over the alignments to a finished set, against Kaldi's reader
    going through the same feats.scp. `two/one` compares two processes packing half each with one
    packing all; plan and start-up, which do not divide, are left out.
    """
    corpus = folder / "corpus"
    corpus.mkdir()
    frames = write_corpus(corpus, dimension, size)
    tasks: dict[str, Callable[[], None]] = {
        "decode": lambda: _decode(corpus / "data" / "feats.scp"),
        "alignment": lambda: _align(corpus / "ali"),
        "write": lambda: _write(folder / "set", frames * (2 * 3 * dimension + 4)),
        "pack": lambda: _pack(corpus, folder),
        "one": lambda: _in_processes(corpus, folder, 1),
        "two": lambda: _in_processes(corpus, folder, 2),
    }
    seconds = dict.fromkeys(tasks, float("inf"))
    for _ in range(repeats):
        for name, task in tasks.items():
            if name in ("one", "two"):
                _packer(corpus, folder).plan()
            began = time.perf_counter()
            task()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            for path in folder.glob("*set*"):
                shutil.rmtree(path)
    return {
        "dimension": dimension,
        "frames": frames,
        "repeats": repeats,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "machine": platform.node(),
        **{f"{name}_frames_per_second": frames / value for name, value in seconds.items()},
        "pack/decode": seconds["decode"] / seconds["pack"],
        "write/decode": seconds["decode"] / seconds["write"],
        "two/one": seconds["one"] / seconds["two"],
    }


def _write(path: Path, size: int) -> None:
    """What packing writes at least: float16 features with two orders of deltas, int32 labels."""
    block = bytes(1 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
        os.fsync(file.fileno())
    path.unlink()


def _packer(corpus: Path, folder: Path) -> Packer:
    parser = argparse.ArgumentParser()
    kaldi.add_arguments(parser)
    words = ["--data", corpus / "data", "--ali", corpus / "ali", "--out", folder / "set"]
    # Small shards, so that two jobs have equally much.
    return kaldi.packer(parser.parse_args([*map(str, words), "--windows-per-shard", "16384"]))


def _pack(corpus: Path, folder: Path) -> None:
    _packer(corpus, folder).everything()


def _in_processes(corpus: Path, folder: Path, jobs: int) -> None:
    context = multiprocessing.get_context("fork")
    packer = _packer(corpus, folder)
    processes = [context.Process(target=packer.job, args=(k + 1, jobs)) for k in range(jobs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a packing process ended with status {process.exitcode}")


def _decode(scp: Path) -> None:
    import kaldi_native_io

    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{scp}") as reader:
        for _ in reader:
            pass


def _align(folder: Path) -> None:
    model = read_transition_model(folder / "final.mdl")
    for path in alignment_files(folder):
        for _, ids in read_alignments(path):
            model.pdfs(ids)


def write_corpus(folder: Path, dimension: int, size: int) -> int:
    """Writes data/ and ali/ with `size` bytes of compressed features; returns the frames."""
    rng = np.random.default_rng(0)
    data, ali = folder / "data", folder / "ali"
    data.mkdir()
    ali.mkdir()
    records, alignments, lengths = [], [], rng.integers(200, 900, _DISTINCT).tolist()
    tuples = np.array(
        [
            (phone, state, (phone - 1) * _STATES + state)
            for phone in range(1, _PHONES + 1)
            for state in range(_STATES)
        ],
        np.int32,
    )
    for frames in lengths:
        record = io.BytesIO()
        walk = rng.standard_normal((frames, dimension), dtype=np.float32).cumsum(axis=0)
        write_compressed(record, "", walk.astype(np.float32))
        records.append(record.getvalue()[1:])
        ids = 2 * rng.integers(0, len(tuples), frames // 6 + 1, dtype=np.int32) + 1
        alignments.append(np.repeat(ids, 6)[:frames])
    total = 0
    names = []
    jobs: list[Any] = [
        gzip.GzipFile(ali / f"ali.{n + 1}.gz", "wb", 1, mtime=0) for n in range(_ALIGNMENT_FILES)
    ]
    count = -(-size // (sum(map(len, records)) // _DISTINCT))
    with open(data / "raw.1.ark", "wb") as ark, open(data / "feats.scp", "w") as scp:
        for number in range(count):
            name = f"spk{number * _SPEAKERS // count:02d}-utt{number:07d}"
            names.append(name)
            ark.write(f"{name} ".encode())
            scp.write(f"{name} {data / 'raw.1.ark'}:{ark.tell()}\n")
            ark.write(records[number % _DISTINCT])
            job = jobs[number * _ALIGNMENT_FILES // count]
            write_ids(job, name, alignments[number % _DISTINCT])
            total += lengths[number % _DISTINCT]
    for job in jobs:
        job.close()
    (data / "utt2spk").write_text("".join(f"{name} {name[:5]}\n" for name in names))
    (data / "utt2num_frames").write_text(
        "".join(f"{name} {lengths[number % _DISTINCT]}\n" for number, name in enumerate(names))
    )
    stats = np.zeros((2, dimension + 1))
    stats[0, -1] = 100
    stats[1, :-1] = 100
    with open(data / "cmvn.ark", "wb") as ark, open(data / "cmvn.scp", "w") as scp:
        for speaker in sorted({name[:5] for name in names}):
            scp.write(f"{speaker} {data / 'cmvn.ark'}:{write_double(ark, speaker, stats)}\n")
    stay = np.full(len(tuples), 0.75)
    (ali / "final.mdl").write_bytes(transition_model_bytes(_PHONES, _STATES, tuples, stay))
    (ali / "num_jobs").write_text(f"{_ALIGNMENT_FILES}\n")
    return total
