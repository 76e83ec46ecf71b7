"""Memory of a packing does not grow with the frames, and little with the utterances."""

import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.write import write_ids
from tests.conftest import run_python

FRAMES = 30


def write_many(folder: Path, corpus: Path, utterances: int) -> list[object]:
    """Many utterances of a few frames that are all one matrix; words for the command."""
    data = folder / "data"
    data.mkdir(parents=True)
    matrix = b"\0BFM \4" + np.int32(FRAMES).tobytes() + b"\4" + np.int32(2).tobytes()
    (data / "one.mat").write_bytes(matrix + np.ones((FRAMES, 2), "<f4").tobytes())
    names = [f"s{number % 100:02d}-{number:07d}" for number in range(utterances)]
    names.sort()
    for table, value in (
        ("feats.scp", f"{data}/one.mat"),
        ("utt2num_frames", str(FRAMES)),
    ):
        (data / table).write_text("".join(f"{name} {value}\n" for name in names))
    (data / "utt2spk").write_text("".join(f"{name} {name[:3]}\n" for name in names))
    records = io.BytesIO()
    for name in names:
        write_ids(records, name, np.ones(FRAMES, np.int32))
    (folder / "ali.1.gz").write_bytes(gzip.compress(records.getvalue(), 1))
    return [
        *("prep", "kaldi", "--data", f"{data},cmvn=none", "--ali", folder / "ali.1.gz"),
        *("--model", corpus / "ali" / "final.mdl", "--out", folder / "set", "--dry-run"),
    ]


def peak_bytes(words: list[object]) -> int:
    # Not getrusage: that counts what the parent held when it forked.
    code = (
        "import sys; from hpcddl.cli import main; status = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read()); sys.exit(status)"
    )
    done = run_python("-c", code, *words, cold=True)
    assert done.returncode == 0, done.stderr
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", done.stdout)[1])


@pytest.mark.slow
def test_memory_by_utterance(corpus, tmp_path):
    """At most 150 bytes each: a gibibyte serves about five million beside Python and torch."""
    few, many = 50_000, 350_000
    low = peak_bytes(write_many(tmp_path / "few", corpus, few))
    high = peak_bytes(write_many(tmp_path / "many", corpus, many))
    assert high - low < 150 * (many - few)
    assert low < 400 << 20
