"""Packing a Kaldi experiment: values, counts, and everything that is wrong with one."""

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.alignments import read_alignments
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import MatrixReader
from data_prep.kaldi.transition_model import read_transition_model
from data_prep.kaldi.write import write_ids
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from hpcddl.data.verify import verify
from tests.data_prep.tables import read_scp, read_table

WINDOW = 21


def packed(folder: Path) -> Path:
    return folder.parent / "shards"


def sources(corpus: Path, split: str) -> list[tuple[str, ...]]:
    """(utterance, speaker) of a packed split, in the order of its utterance numbers."""
    lines = (packed(corpus) / f"{split}.utt2spk").read_text().splitlines()
    return [tuple(line.split()) for line in lines]


def speakers(corpus: Path, split: str) -> set[str]:
    return {speaker for _, speaker in sources(corpus, split)}


def loop_reference(corpus: Path, split_of: dict[str, str], hop: int) -> dict[str, list]:
    """Windows by plain loops over frames: mean-normalised features, no deltas, and pdfs."""
    reader = MatrixReader(PathMap())
    entries = read_scp(corpus / "data" / "feats.scp", PathMap())
    speaker_of = read_table(corpus / "data" / "utt2spk")
    features = {key: reader.read(entry).astype(np.float64) for key, entry in entries.items()}
    reader.close()
    frames_of: dict[str, list] = {}
    for key, matrix in features.items():
        frames_of.setdefault(speaker_of[key], []).append(matrix)
    mean = {speaker: np.concatenate(parts).mean(0) for speaker, parts in frames_of.items()}
    model = read_transition_model(corpus / "ali" / "final.mdl")
    out: dict[str, list] = {"train": [], "heldout": []}
    for job in (1, 2):
        for key, ids in read_alignments(corpus / "ali" / f"ali.{job}.gz"):
            normal = features[key] - mean[speaker_of[key]]
            step = hop if split_of[speaker_of[key]] == "train" else WINDOW
            for start in range(0, len(normal) - WINDOW + 1, step):
                end = start + WINDOW
                out[split_of[speaker_of[key]]].append(
                    (key, start, normal[start:end], model.pdf[ids[start:end]])
                )
    return out


@pytest.mark.parametrize("hop", [WINDOW, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_packed_windows_equal_a_loop(corpus, pack, hop, dtype):
    """Same windows in the same order with the same labels; the hop is for training only."""
    words = ["--delta-order", 0, "--heldout-speakers", "spk0002", "--dtype", dtype]
    done = pack(corpus, *words, *(["--hop", hop] if hop != WINDOW else []))
    assert done.returncode == 0, done.stderr
    split_of = {f"spk{n:04d}": "heldout" if n == 2 else "train" for n in range(4)}
    want = loop_reference(corpus, split_of, hop)
    for name, windows in want.items():
        split = open_split(packed(corpus), name)
        assert len(split) == len(windows) > 5
        features, labels = split.batch(np.arange(len(split)))
        scale = 1e-3 if dtype == "float16" else 2e-6
        for row, (_, _, values, pdfs) in enumerate(windows):
            assert np.allclose(features[row], values, rtol=scale, atol=30 * scale)
            assert np.array_equal(labels[row], pdfs)
        with_windows = dict.fromkeys(key for key, *_ in windows)
        assert sources(corpus, name) == [(key, key.split("-")[0]) for key in with_windows]


def test_utterance_and_start_of_each_window(corpus, pack):
    """The bookkeeping datasets lead back to the utterance and its frame."""
    import h5py

    assert pack(corpus, "--heldout-speakers", "spk0001", "--hop", 4).returncode == 0
    split_of = {f"spk{n:04d}": "heldout" if n == 1 else "train" for n in range(4)}
    want = loop_reference(corpus, split_of, 4)
    for name, windows in want.items():
        with h5py.File(packed(corpus) / f"{name}-00000.h5") as file:
            names = [sources(corpus, name)[u][0] for u in file["utterance"][:]]
            got = list(zip(names, file["start"][:].tolist(), strict=True))
        assert got == [(key, start) for key, start, _, _ in windows]


def test_every_frame_is_accounted_for(corpus, pack):
    """Frames in windows plus remainders are all frames; class counts are the labels'."""
    assert pack(corpus, "--heldout-fraction", 0.3).returncode == 0
    manifest = verify(packed(corpus))
    total = sum(map(int, read_table(corpus / "data" / "utt2num_frames").values()))
    windows = sum(split.samples for split in manifest.splits.values())
    dropped = sum(manifest.counts["remainder_frames"].values())
    assert windows * WINDOW + dropped == total
    split = open_split(packed(corpus), "train")
    labels = split.batch(np.arange(len(split)))[1].numpy()
    assert np.array_equal(split.class_counts, np.bincount(labels.ravel(), minlength=100))
    assert manifest.classes == 100
    assert manifest.fields["features"].shape == (WINDOW, 39)
    assert not speakers(corpus, "train") & speakers(corpus, "heldout")


def test_same_input_same_bytes_and_overwrite(corpus, pack):
    """Twice the same set; an existing one stays unless --overwrite, and only a set is replaced."""
    words = ["--windows-per-shard", 30]
    assert pack(corpus, *words).returncode == 0
    files = {path.name: path.read_bytes() for path in packed(corpus).iterdir()}
    assert len(files) > 4
    again = pack(corpus, *words)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert pack(corpus, *words, "--overwrite").returncode == 0
    assert {path.name: path.read_bytes() for path in packed(corpus).iterdir()} == files
    (packed(corpus) / "manifest.json").unlink()
    refused = pack(corpus, *words, "--overwrite")
    assert refused.returncode == 2
    assert "no earlier output" in refused.stderr
    assert leftovers(corpus) == []


def leftovers(corpus: Path) -> list[str]:
    return [path.name for path in corpus.parent.iterdir() if path.name.startswith(".")]


def fails(corpus: Path, done, *patterns: str) -> None:
    """Status 2, one line that matches, and nothing left on disk."""
    assert done.returncode == 2, done.stderr
    line = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(line) == 1
    for pattern in patterns:
        assert re.search(pattern, line[0]), line[0]
    assert not packed(corpus).exists()
    assert leftovers(corpus) == []


def replace(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def local(corpus: Path) -> Path:
    """Makes the copied corpus read its own archives."""
    for name in ("feats.scp", "cmvn.scp"):
        path = corpus / "data" / name
        first = path.read_text().split()[1]
        path.write_text(path.read_text().replace(str(Path(first).parent), str(corpus / "data")))
    return corpus


def test_stale_path_says_which_prefix_to_map(corpus, pack):
    local(corpus)
    replace(corpus / "data" / "feats.scp", str(corpus), "/old/home", -1)
    done = pack(corpus)
    fails(corpus, done, "spk0000-utt000000: /old/home/data/raw_mfcc", f"--map /old/home={corpus}")
    assert pack(corpus, "--map", f"/old/home={corpus}").returncode == 0


def test_cut_ark(corpus, pack):
    ark = local(corpus) / "data" / "raw_mfcc.1.ark"
    ark.write_bytes(ark.read_bytes()[:-1])
    fails(corpus, pack(corpus), r"spk0003-utt000011: .*raw_mfcc.1.ark:\d+: cut")


def test_nan_in_features(corpus, pack):
    """Written as a float matrix, since compression cannot hold one."""
    local(corpus)
    frames = int(read_table(corpus / "data" / "utt2num_frames")["spk0001-utt000003"])
    matrix = np.zeros((frames, 13), "<f4")
    matrix[7, 3] = np.nan
    head = b"\0BFM \4" + np.int32(frames).tobytes() + b"\4" + np.int32(13).tobytes()
    (corpus / "nan.mat").write_bytes(head + matrix.tobytes())
    scp = corpus / "data" / "feats.scp"
    scp.write_text(re.sub(r"(?m)^(spk0001-utt000003) .*", rf"\1 {corpus}/nan.mat", scp.read_text()))
    fails(corpus, pack(corpus), "spk0001-utt000003: .*feature 3 of frame 7 is nan")


def test_overflow_of_float16(corpus, pack):
    local(corpus)
    frames = int(read_table(corpus / "data" / "utt2num_frames")["spk0001-utt000003"])
    head = b"\0BFM \4" + np.int32(frames).tobytes() + b"\4" + np.int32(13).tobytes()
    (corpus / "big.mat").write_bytes(head + np.full((frames, 13), 1e6, "<f4").tobytes())
    scp = corpus / "data" / "feats.scp"
    scp.write_text(re.sub(r"(?m)^(spk0001-utt000003) .*", rf"\1 {corpus}/big.mat", scp.read_text()))
    fails(corpus, pack(corpus), "spk0001-utt000003: a feature is beyond float16; .*float32")
    assert pack(corpus, "--dtype", "float32").returncode == 0


def test_pipe_entry(corpus, pack, tmp_path):
    """The command is not run."""
    scp = corpus / "data" / "feats.scp"
    scp.write_text(re.sub(r"(?m)^(spk0001-utt000003) .*", r"\1 touch owned |", scp.read_text()))
    fails(corpus, pack(corpus), "spk0001-utt000003: a command")


BROKEN = [
    ("data/feats.scp", None, r"feats.scp: cannot read"),
    ("data/utt2spk", None, r"utt2spk: cannot read"),
    ("data/cmvn.scp", None, r"cmvn.scp: no such file; .*--no-cmvn"),
    ("ali/final.mdl", None, r"final.mdl: no such model"),
    ("ali/ali.2.gz", None, r"ali.2.gz is missing"),
    ("data/raw_mfcc.1.ark", None, r"raw_mfcc.1.ark: No such file"),
    ("data/utt2spk", ("spk0001-utt000004 spk0001\n", ""), r"spk0001-utt000004: no speaker"),
    ("data/cmvn.scp", ("spk0002 ", "spk0009 "), r"no statistics for speaker spk0002"),
    ("ali/cmvn_opts", ("\n", "--reverse=true\n"), r"cmvn_opts: --reverse=true: must be"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_missing_and_incomplete_files_are_named(corpus, pack, name, change, message):
    local(corpus)
    if change is None:
        (corpus / name).unlink()
    else:
        replace(corpus / name, *change)
    fails(corpus, pack(corpus, "--heldout-speakers", "spk0003"), message)


OPTIONS = [
    (["--heldout-speakers", "nobody"], "'nobody' has no utterances; must be among spk0000"),
    (["--heldout-speakers", "spk0000,spk0001,spk0002,spk0003"], "the train split is empty"),
    (["--heldout-fraction", "1"], "--heldout-fraction: 1: must be above 0 and below 1"),
    (["--hop", "22"], "--hop: 22: must be at most --frames 21"),
    (["--hop", "0"], "--hop: 0: must be a whole number, at least 1"),
    (["--frames", "0"], "--frames: 0"),
    (["--frames", "5000"], "split is empty"),
    (["--windows-per-shard", "0"], "--windows-per-shard: 0"),
    (["--no-cmvn", "--norm-vars"], "--norm-vars: not with --no-cmvn"),
    (["--map", "x"], "--map x: expected OLD=NEW"),
    (["--model", "/none.mdl"], "/none.mdl: cannot read the model"),
]


@pytest.mark.parametrize(("words", "message"), OPTIONS)
def test_bad_options_are_named(corpus, pack, words, message):
    fails(corpus, pack(corpus, *words), message)


def rewrite_alignments(corpus: Path, change) -> None:
    """Writes job 1's alignments again, each (key, ids) through `change`; None drops it."""
    path = corpus / "ali" / "ali.1.gz"
    pairs = list(read_alignments(path))
    with gzip.open(path, "wb") as file:
        for key, ids in pairs:
            new = change(key, ids)
            if new is not None:
                write_ids(file, key, new)


def test_an_id_of_another_model(corpus, pack):
    rewrite_alignments(corpus, lambda key, ids: np.append(ids[:-1], np.int32(999)))
    fails(corpus, pack(corpus), r"spk0000-utt000000: .*ali.1.gz: .* the model has 1 \.\. 200")


def test_an_utterance_aligned_twice(corpus, pack):
    shutil.copy(corpus / "ali" / "ali.1.gz", corpus / "ali" / "ali.2.gz")
    fails(corpus, pack(corpus), "spk0000-utt000000: aligned twice")


def test_what_is_not_packed_is_counted_and_named(corpus, pack):
    """One utterance per reason: cut alignment, no alignment, no features, too short."""

    def change(key: str, ids: np.ndarray) -> np.ndarray | None:
        if key.endswith("utt000001"):
            return ids[:-1]
        return None if key.endswith("utt000002") else ids

    rewrite_alignments(corpus, change)
    scp = corpus / "data" / "feats.scp"
    scp.write_text(re.sub(r"(?m)^spk0001-utt000003 .*\n", "", scp.read_text()))
    done = pack(corpus, "--heldout-speakers", "spk0003")
    assert done.returncode == 0, done.stderr
    want = {
        "spk0000-utt000001": "features and alignment of different lengths",
        "spk0001-utt000003": f"no features in {corpus / 'data'}",
        "spk0000-utt000002": "no alignment",
    }
    assert read_manifest(packed(corpus)).counts["skipped"] == dict.fromkeys(want.values(), 1)
    lines = (packed(corpus) / "skipped.txt").read_text().splitlines()
    assert sorted(lines) == [f"{name} {reason}" for name, reason in sorted(want.items())]
    for reason in want.values():
        assert f"skipped 1 utterances: {reason} (named in skipped.txt)" in done.stdout
    used = [name for split in ("train", "heldout") for name, _ in sources(corpus, split)]
    assert len(used) == 9
    assert not set(used) & want.keys()


def test_variances_by_option_or_by_cmvn_opts(corpus, pack):
    """Both give the same bytes, and frames of variance one over a speaker."""
    words = ["--heldout-speakers", "spk0003", "--dtype", "float32", "--delta-order", 0]
    assert pack(corpus, *words, "--norm-vars").returncode == 0
    one = (packed(corpus) / "train-00000.h5").read_bytes()
    (corpus / "ali" / "cmvn_opts").write_text("--norm-means=true --norm-vars=true\n")
    assert pack(corpus, *words, "--overwrite").returncode == 0
    assert (packed(corpus) / "train-00000.h5").read_bytes() == one
    split = open_split(packed(corpus), "heldout")
    features, _ = split.batch(np.arange(len(split)))
    assert np.allclose(features.flatten(0, 1).std(0), 1, atol=0.15)


def test_copies_are_held_out_with_their_speaker(corpus, pack):
    """utt2uniq: holding out one speaker takes the speaker of its perturbed copies along."""
    text = "spk0000-utt000000 x\nspk0002-utt000007 x\n"
    (corpus / "data" / "utt2uniq").write_text(text)
    assert pack(corpus, "--heldout-speakers", "spk0002").returncode == 0
    assert speakers(corpus, "heldout") == {"spk0000", "spk0002"}


def test_the_real_digits(digits, command, tmp_path):
    """Kaldi's own experiment: all utterances match, the pdfs are the model's, nothing is lost."""
    words = [
        *("--data", digits / "data" / "train", "--ali", digits / "exp" / "tri1"),
        *("--out", tmp_path / "shards", "--heldout-speakers", "theo"),
    ]
    stale = command("prep", "kaldi", *words)
    assert stale.returncode == 2
    assert f"--map /home/selma/kaldi/egs/digits={digits}" in stale.stderr
    done = command("prep", "kaldi", *words, "--map", f"/home/selma/kaldi/egs/digits={digits}")
    assert done.returncode == 0, done.stderr
    manifest = verify(tmp_path / "shards")
    assert (manifest.classes, manifest.fields["features"].shape) == (96, (21, 39))
    assert list(manifest.counts["skipped"]) == ["shorter than 21 frames"]
    for split, speaker in (("train", "nicolas"), ("heldout", "theo")):
        lines = (tmp_path / "shards" / f"{split}.utt2spk").read_text().splitlines()
        assert {line.split()[1] for line in lines} == {speaker}
    frames = sum(map(int, read_table(digits / "data" / "train" / "utt2num_frames").values()))
    windows = sum(split.samples for split in manifest.splits.values())
    assert windows * 21 + sum(manifest.counts["remainder_frames"].values()) == frames
    assert windows == 1198
    # The split of the features without deltas has zero mean over a whole speaker by CMVN; windows
    # leave out the remainders, so it is near zero here.
    features, _ = open_split(tmp_path / "shards", "train").batch(np.arange(542))
    assert abs(features[..., 1:13].mean()) < 1
