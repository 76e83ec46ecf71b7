"""`hpcddl prep mini-corpus`: a small generated corpus, laid out as Kaldi leaves an experiment."""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.kaldi.matrix import read_matrix
from data_prep.kaldi.write import (
    transition_model_bytes,
    write_compressed,
    write_double,
    write_ids,
)
from data_prep.mini_speech import (
    DIMENSION,
    MAX_CLASSES,
    MIN_CLASSES,
    PHONES,
    STATES,
    Speech,
    generate,
    stay_probability,
)
from hpcddl.common.bounds import between
from hpcddl.common.errors import UserError
from hpcddl.common.folders import whole_folder

_JOBS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `hpcddl prep mini-corpus`."""
    parser.description = (
        "Generate speech-like features with alignments and write them in Kaldi's format: "
        "DIR/data (compressed features, CMVN statistics) and DIR/ali (alignments, model)."
    )
    parser.epilog = (
        "example: hpcddl prep mini-corpus corpus && "
        "hpcddl prep kaldi --data corpus/data --ali corpus/ali --out shards"
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="the new folder")
    add(
        "--utterances",
        type=between(1, 10**6),
        default=504,
        help="number of utterances, each about 18 windows of 21 frames",
    )
    add(
        "--speakers",
        type=between(2, 9999),
        default=18,
        help="number of speakers, with (nearly) equally many utterances",
    )
    add("--classes", type=between(MIN_CLASSES, MAX_CLASSES), default=300, help="number of pdfs")
    add("--seed", type=between(0, 2**63), default=0, help="seed of everything that is random")
    add("--overwrite", action="store_true", help="replace an earlier corpus at DIR")


def run(arguments: argparse.Namespace) -> int:
    """Writes the corpus, completely or not at all."""
    if arguments.utterances < arguments.speakers:
        raise UserError(
            f"--utterances: {arguments.utterances}: must be at least --speakers "
            f"{arguments.speakers}"
        )
    speech = generate(arguments.utterances, arguments.speakers, arguments.classes, arguments.seed)
    out = Path(arguments.directory).absolute()
    with whole_folder(out, "ali/final.mdl", arguments.overwrite) as folder:
        write_corpus(speech, folder, out)
    print(
        f"{arguments.directory}: {arguments.utterances} utterances of {arguments.speakers} "
        f"speakers, {len(speech.pdf)} frames, {arguments.classes} classes"
    )
    return 0


def write_corpus(speech: Speech, folder: Path, final: Path) -> None:
    """Writes the corpus to `folder`; the paths in its files begin with `final`, absolute."""
    data, alignments = folder / "data", folder / "ali"
    data.mkdir()
    alignments.mkdir()
    speakers = [f"spk{number:04d}" for number in speech.speaker]
    names = [f"{speaker}-utt{number:06d}" for number, speaker in enumerate(speakers)]
    _write_features(speech, names, speakers, data, final / "data")
    (data / "utt2spk").write_text(_lines(zip(names, speakers, strict=True)))
    of: dict[str, list[str]] = {}
    for name, speaker in zip(names, speakers, strict=True):
        of.setdefault(speaker, []).append(name)
    (data / "spk2utt").write_text(_lines((speaker, " ".join(of[speaker])) for speaker in of))
    frames = np.diff(speech.bounds).tolist()
    (data / "utt2num_frames").write_text(_lines(zip(names, frames, strict=True)))
    _write_alignments(speech, names, alignments)


def _lines(pairs: Iterable[tuple[str, object]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in pairs)


def _write_features(
    speech: Speech, names: list[str], speakers: list[str], data: Path, final: Path
) -> None:
    stats = {speaker: np.zeros((2, DIMENSION + 1)) for speaker in speakers}
    lines = []
    with open(data / "raw_mfcc.1.ark", "w+b") as ark:
        for number, name in enumerate(names):
            frames = slice(speech.bounds[number], speech.bounds[number + 1])
            offset = write_compressed(ark, name, speech.features[frames])
            lines.append((name, f"{final / 'raw_mfcc.1.ark'}:{offset}"))
            # Statistics of what a reader will see, rounding included.
            ark.seek(offset)
            _accumulate(stats[speakers[number]], read_matrix(ark))
    (data / "feats.scp").write_text(_lines(lines))
    lines = []
    with open(data / "cmvn.ark", "wb") as ark:
        for speaker, matrix in stats.items():
            offset = write_double(ark, speaker, matrix)
            lines.append((speaker, f"{final / 'cmvn.ark'}:{offset}"))
    (data / "cmvn.scp").write_text(_lines(lines))


def _accumulate(stats: NDArray[np.float64], features: NDArray) -> None:
    features = features.astype(np.float64)
    stats[0, :-1] += features.sum(axis=0)
    stats[0, -1] += len(features)
    stats[1, :-1] += (features**2).sum(axis=0)


def _write_alignments(speech: Speech, names: list[str], folder: Path) -> None:
    # Pdf p has transition-ids 2p+1, its self-loop, and 2p+2, which leads out of the state. Kaldi
    # reorders: a state is entered by the latter, and stays by the former.
    ids = (2 * speech.pdf + np.where(speech.enters, 2, 1)).astype(np.int32)
    for job in range(_JOBS):
        records = io.BytesIO()
        for number in range(len(names) * job // _JOBS, len(names) * (job + 1) // _JOBS):
            write_ids(
                records, names[number], ids[speech.bounds[number] : speech.bounds[number + 1]]
            )
        # No time inside: the same seed gives the same bytes.
        (folder / f"ali.{job + 1}.gz").write_bytes(gzip.compress(records.getvalue(), mtime=0))
    (folder / "num_jobs").write_text(f"{_JOBS}\n")
    (folder / "cmvn_opts").write_text("\n")
    pdfs = np.arange(len(speech.states), dtype=np.int32)[:, None]
    tuples = np.hstack([speech.states + np.array([1, 0], np.int32), pdfs])
    (folder / "final.mdl").write_bytes(
        transition_model_bytes(PHONES, STATES, tuples, stay_probability(speech.states))
    )
