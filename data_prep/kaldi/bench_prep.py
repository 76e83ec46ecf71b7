"""`hpcddl bench prep`: packing against Kaldi's own reader merely decoding the same files.

Writes a corpus of compressed features in Kaldi's format and measures, in turns, kaldi_native_io
decoding all features, reading the alignments as pdf-ids, and packing with CMVN and deltas: in this
process on one core, and by one and two processes.

example: hpcddl bench prep --dim 40 --mib 200 --json
"""

import argparse
import gzip
import importlib.util
import io
import multiprocessing
import os
import shutil
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
from hpcddl.bench import benchmark as bench
from hpcddl.common.bounds import at_least
from hpcddl.common.errors import UserError

_PHONES, _STATES = 40, 3
_SPEAKERS = 20
_DISTINCT = 100  # utterances; more are copies, so that a large corpus is written quickly
_ALIGNMENT_FILES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl bench prep`."""
    add, one = bench.describe(parser, __doc__), at_least(1)
    add("--dim", type=one, default=40, help="features per frame, before deltas")
    add("--mib", type=one, default=100, help="MiB of compressed features in the corpus")
    add("--repeats", type=one, default=3, help="repeats of each measurement; the best counts")
    add("--dir", type=Path, help="where to put the temporary files, if not in $TMPDIR")
    add("--corpus", type=Path, help="only write the corpus there, and keep it")


def run(arguments: argparse.Namespace) -> int:
    """Writes the corpus and no more, or measures and prints."""
    corpus = arguments.corpus
    del arguments.corpus
    if corpus is None:
        return bench.command(measure, as_text)(arguments)
    try:
        corpus.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--corpus: {corpus}: {error.strerror}") from None
    frames = write_corpus(corpus, arguments.dim, arguments.mib << 20)
    print(f"{corpus}: {frames} frames of {arguments.dim} features")
    return 0


def measure(*, dim: int, mib: int, repeats: int, dir: Path | None) -> bench.Result:
    """Takes the best of some repeats each, as rates and ratios.

    `write/decode` writes and syncs as many bytes as the set has. `pack/decode` is one process on
    one core, from the first pass over the alignments to a finished set, against Kaldi's reader
    going through the same feats.scp. `two/one` compares two processes packing half each with one
    packing all; plan and start-up, which do not divide, are left out.
    """
    if importlib.util.find_spec("kaldi_native_io") is None:
        raise UserError("bench prep: compares with kaldi_native_io: pip install kaldi_native_io")
    torch.set_num_threads(1)
    with bench.temporary_folder(dir) as folder:
        corpus = folder / "corpus"
        corpus.mkdir()
        frames = write_corpus(corpus, dim, mib << 20)
        tasks: dict[str, bench.Work] = {
            "decode": lambda: _decode(corpus / "data" / "feats.scp"),
            "alignment": lambda: _align(corpus / "ali"),
            "write": lambda: _write(folder / "set", frames * (2 * 3 * dim + 4)),
            "pack": lambda: _packer(corpus, folder).everything(),
            "one": lambda: _in_processes(corpus, folder, 1),
            "two": lambda: _in_processes(corpus, folder, 2),
        }

        def turn(name: str) -> float:
            if name in ("one", "two"):
                _packer(corpus, folder).plan()
            spent = bench.seconds(tasks[name])
            for path in folder.glob("*set*"):
                shutil.rmtree(path)
            return spent

        best = bench.best(bench.in_turns({name: name for name in tasks}, repeats, turn, warm=0))
    return {
        "dimension": dim,
        "frames": frames,
        "repeats": repeats,
        **bench.machine(),
        **{f"{name}_frames_per_second": frames / value for name, value in best.items()},
        "pack/decode": best["decode"] / best["pack"],
        "write/decode": best["decode"] / best["write"],
        "two/one": best["one"] / best["two"],
    }


def as_text(result: bench.Result) -> str:
    """Lays out a row per task, with its speed in that of others."""
    labels = {
        "decode": "kaldi_native_io decodes",
        "pack": "packing on one core",
        "write": "writing as many bytes",
        "alignment": "alignments to pdf-ids",
        "one": "one process",
        "two": "two processes",
    }
    rows = {
        label: {
            "rate": result[f"{name}_frames_per_second"],
            "decode": result.get(f"{name}/decode"),
            "one": result.get(f"{name}/one"),
        }
        for name, label in labels.items()
    }
    columns = [
        bench.Column("M frames/s", "rate", ".1f", 1e6),
        bench.Column("of decoding", "decode", ".2f"),
        bench.Column("of one process", "one", ".2f"),
    ]
    lines = [
        f"{result['frames']:,} frames of {result['dimension']} features, {result['cores']} cores, "
        f"{result['machine']}",
        *bench.table(rows, columns),
        "writing as many bytes is the most that packing can be on this disk",
    ]
    return "\n".join(lines)


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
