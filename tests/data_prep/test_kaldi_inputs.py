"""What Kaldi leaves on disk, packed through the command: pasted streams, pdf-ids, copies, pipes."""

import gzip
import shlex
from pathlib import Path

import kaldi_native_io
import numpy as np
import pytest

from data_prep.kaldi.alignments import read_alignments
from data_prep.kaldi.table import Table
from data_prep.kaldi.transition_model import read_transition_model
from data_prep.kaldi.write import write_ids
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split

RNG = np.random.default_rng(0)


def lengths(corpus: Path) -> dict[str, int]:
    with Table(corpus / "data" / "utt2num_frames") as table:
        return {line.key: int(line.value) for line in table}


def speakers(folder: Path, split: str) -> set[str]:
    return {line.split()[1] for line in (folder / f"{split}.utt2spk").read_text().splitlines()}


def write_folder(folder: Path, matrices: dict[str, np.ndarray], name: str = "feats.scp") -> Path:
    """A feature folder as Kaldi's own writer leaves it."""
    folder.mkdir()
    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{folder}/x.ark,{folder}/{name}") as writer:
        for key, matrix in matrices.items():
            writer.write(key, matrix.astype(np.float32))
    return folder


def deltas(x: np.ndarray) -> np.ndarray:
    """Kaldi's, in double precision: a slope over two frames each side, edges repeated."""
    order1 = np.array([-2, -1, 0, 1, 2]) / 10
    kernels = [np.ones(1), order1, np.convolve(order1, order1)]
    padded = np.pad(x, ((4, 4), (0, 0)), mode="edge")
    blocks = []
    for kernel in kernels:
        first = 4 - len(kernel) // 2
        parts = [w * padded[first + k : first + k + len(x)] for k, w in enumerate(kernel)]
        blocks.append(np.sum(parts, axis=0))
    return np.hstack(blocks)


def test_the_papers_260_features(corpus, command, tmp_path):
    """40 fMLLR, 100 i-vector (period 10), 40 log-mel with CMVN and deltas: a float64 reference."""
    frames = lengths(corpus)
    fmllr = {key: RNG.normal(size=(count, 40)) for key, count in frames.items()}
    ivectors = {key: RNG.normal(size=(-(-count // 10), 100)) for key, count in frames.items()}
    # One frame less than the others: within the tolerance of paste-feats.
    logmel = {key: RNG.normal(size=(count - 1, 40)) + 3 for key, count in frames.items()}
    a = write_folder(tmp_path / "fmllr", fmllr)
    b = write_folder(tmp_path / "ivectors", ivectors, "ivector_online.scp")
    c = write_folder(tmp_path / "logmel", logmel)
    (b / "ivector_period").write_text("10\n")
    for name in ("utt2spk", "utt2num_frames"):
        (a / name).write_bytes((corpus / "data" / name).read_bytes())
    mean = np.mean([matrix.mean(axis=0) for matrix in logmel.values()], axis=0)
    stats = np.zeros((2, 41))
    stats[0, :40], stats[0, 40], stats[1, :40] = 7 * mean, 7, 1000
    kaldi_native_io.DoubleMatrix(stats).write(f"{c}/global_cmvn.stats", binary=True)
    words = [
        *("--data", f"{a},cmvn=none,delta-order=0", "--data", b, "--data", f"{c},cmvn=global"),
        *("--ali", corpus / "ali", "--out", tmp_path / "set", "--dtype", "float32"),
        *("--heldout-speakers", "spk0001"),
    ]
    done = command("prep", "kaldi", *words)
    assert done.returncode == 0, done.stderr
    assert "skipped" not in done.stdout
    manifest = read_manifest(tmp_path / "set")
    assert manifest.fields["features"].shape == (21, 260)
    split = open_split(tmp_path / "set", "train")
    got = split.batch(np.arange(len(split)))[0].numpy()
    want = []
    for line in (tmp_path / "set" / "train.utt2spk").read_text().splitlines():
        key = line.split()[0]
        x = logmel[key].astype(np.float32).astype(np.float64) - mean
        rows = len(x)
        whole = np.hstack(
            [fmllr[key][:rows], ivectors[key][np.arange(rows) // 10], deltas(x)[:rows]]
        )
        want += [whole[at : at + 21] for at in range(0, rows - 20, 21)]
    assert np.allclose(got, np.array(want), rtol=1e-5, atol=2e-6)


def test_lengths_beyond_the_tolerance(corpus, command, tmp_path):
    """Three frames of difference: skipped by default, as paste-feats does; cut when allowed."""
    frames = lengths(corpus)
    short = {key: np.ones((count - 3, 2)) for key, count in frames.items()}
    folder = write_folder(tmp_path / "short", short)
    words = [
        *("--data", corpus / "data", "--data", f"{folder},cmvn=none", "--ali", corpus / "ali"),
        *("--out", tmp_path / "set", "--heldout-speakers", "spk0001"),
    ]
    done = command("prep", "kaldi", *words)
    assert done.returncode == 2
    assert "no utterance can be packed (12: pasted features of different lengths)" in done.stderr
    done = command("prep", "kaldi", *words, "--length-tolerance", 3)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "set").fields["features"].shape == (21, 39 + 6)


@pytest.mark.parametrize("text", [False, True])
def test_pdf_ids_instead_of_transition_ids(corpus, command, tmp_path, text):
    """ali-to-pdf's output, binary or text, zipped; the windows are those of the model's pdfs."""
    model = read_transition_model(corpus / "ali" / "final.mdl")
    (tmp_path / "pdf").mkdir()
    for job in (1, 2):
        with gzip.open(tmp_path / "pdf" / f"pdf.{job}.gz", "wb") as file:
            for key, ids in read_alignments(corpus / "ali" / f"ali.{job}.gz"):
                if text:
                    file.write(f"{key} {' '.join(map(str, model.pdf[ids]))}\n".encode())
                else:
                    write_ids(file, key, model.pdf[ids])
    words = ["--data", corpus / "data", "--heldout-speakers", "spk0001"]
    for name, more in (("a", ["--ali", corpus / "ali"]), ("b", ["--ali", tmp_path / "pdf"])):
        given = ["--pdf-ids", 100] if name == "b" else []
        done = command("prep", "kaldi", *words, *more, *given, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "a").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    few = ["--ali", tmp_path / "pdf", "--pdf-ids", 50, "--out", tmp_path / "c"]
    done = command("prep", "kaldi", *words, *few)
    assert done.returncode == 2
    assert "pdf-ids span" in done.stderr
    assert "must be 0 .. 49" in done.stderr


def test_perturbed_copies_follow_their_originals(corpus, command, tmp_path):
    """Copies with speakers of their own, known by name only: never on the other side."""
    data = corpus / "data"
    for name in ("feats.scp", "utt2spk", "utt2num_frames"):
        lines = (data / name).read_text().splitlines()
        prefix = "sp0.9-" if name == "utt2spk" else ""
        copies = [f"sp0.9-{k} {prefix}{v}" for k, v in (line.split(None, 1) for line in lines)]
        (data / name).write_text("\n".join(sorted(lines + copies)) + "\n")
    with open(data / "cmvn.scp", "a") as file:
        file.write("".join(f"sp0.9-{line}\n" for line in Path(file.name).read_text().splitlines()))
    with gzip.open(corpus / "ali" / "ali.2.gz", "ab") as file:
        for job in (1, 2):
            for key, ids in list(read_alignments(corpus / "ali" / f"ali.{job}.gz")):
                write_ids(file, f"sp0.9-{key}", ids)
    words = ["--data", data, "--ali", corpus / "ali", "--heldout-fraction", 0.3]
    for seed in range(4):
        done = command("prep", "kaldi", *words, "--seed", seed, "--out", tmp_path / f"set{seed}")
        assert done.returncode == 0, done.stderr
        train, held = (speakers(tmp_path / f"set{seed}", split) for split in ("train", "heldout"))
        assert len(train | held) == 8
        assert not train & held
        for side in (train, held):
            assert {f"sp0.9-{name.removeprefix('sp0.9-')}" for name in side} <= side


def test_pipes_only_when_allowed(corpus, command, tmp_path):
    """Then their output is packed like the files', and their exit status counts."""
    scp = corpus / "data" / "feats.scp"
    entries = [line.split() for line in scp.read_text().splitlines()]

    def through(tail: str) -> None:
        lines = []
        for key, place in entries:
            path, offset = place.rsplit(":", 1)
            command = f"tail -c +{int(offset) + 1} {shlex.quote(path)}{tail}"
            lines.append(f"{key} {command} |\n")
        scp.write_text("".join(lines))

    words = ["--data", corpus / "data", "--ali", corpus / "ali", "--heldout-speakers", "spk0001"]
    assert command("prep", "kaldi", *words, "--out", tmp_path / "files").returncode == 0
    through("")
    refused = command("prep", "kaldi", *words, "--out", tmp_path / "pipes")
    assert refused.returncode == 2
    assert "--allow-pipes" in refused.stderr
    done = command("prep", "kaldi", *words, "--out", tmp_path / "pipes", "--allow-pipes")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "files").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "pipes" / path.name).read_bytes()
    through("; exit 3")
    done = command("prep", "kaldi", *words, "--out", tmp_path / "failing", "--allow-pipes")
    assert done.returncode == 2
    assert "ended with status 3" in done.stderr
    assert not (tmp_path / "failing").exists()
