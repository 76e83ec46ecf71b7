"""The generated corpus: Kaldi reads it, and it is as hard as it says."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.alignments import read_alignments
from data_prep.mini_speech import MAX_CLASSES, MIN_CLASSES, generate
from tests.data_prep.tables import read_table

SMALL = ["--utterances", "12", "--speakers", "4", "--classes", "100"]


def test_kaldis_reader_reads_it(corpus_once):
    """Features, statistics and alignments through Kaldi's own reader, with consistent lengths."""
    kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io as the oracle")
    data, ali = corpus_once / "data", corpus_once / "ali"
    frames = {key: int(value) for key, value in read_table(data / "utt2num_frames").items()}
    speaker_of = read_table(data / "utt2spk")
    sums = {speaker: np.zeros((2, 14)) for speaker in speaker_of.values()}
    with kaldi.SequentialFloatMatrixReader(f"scp:{data / 'feats.scp'}") as reader:
        for key, matrix in reader:
            values = np.asarray(matrix, np.float64)
            assert values.shape == (frames.pop(key), 13)
            sums[speaker_of[key]][0] += np.append(values.sum(0), len(values))
            sums[speaker_of[key]][1, :-1] += (values**2).sum(0)
    assert frames == {}
    with kaldi.SequentialDoubleMatrixReader(f"scp:{data / 'cmvn.scp'}") as reader:
        for key, matrix in reader:
            assert np.allclose(np.asarray(matrix), sums.pop(key))
    assert sums == {}
    lengths = {}
    for job in (1, 2):
        with kaldi.SequentialInt32VectorReader(f"ark:gunzip -c {ali}/ali.{job}.gz|") as reader:
            lengths.update({key: len(ids) for key, ids in reader})
    assert lengths == {
        key: int(value) for key, value in read_table(data / "utt2num_frames").items()
    }


def test_lists_agree(corpus_once):
    """spk2utt is utt2spk the other way round, and ids begin with their speaker, sorted."""
    data = corpus_once / "data"
    speaker_of = read_table(data / "utt2spk")
    assert list(speaker_of) == sorted(speaker_of) == list(read_table(data / "feats.scp"))
    for speaker, names in read_table(data / "spk2utt").items():
        assert [key for key, value in speaker_of.items() if value == speaker] == names.split()
        assert all(name.startswith(speaker + "-") for name in names.split())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"DIR")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_seed_gives_its_bytes(corpus_once, command, tmp_path):
    """The same everywhere but for the paths inside; another seed gives another corpus."""
    assert command("prep", "mini-corpus", tmp_path / "a", *SMALL).returncode == 0
    assert command("prep", "mini-corpus", tmp_path / "b", *SMALL, "--seed", 1).returncode == 0
    assert command("prep", "mini-corpus", tmp_path / "a", *SMALL).returncode == 2
    assert command("prep", "mini-corpus", tmp_path / "a", *SMALL, "--overwrite").returncode == 0
    first = contents(corpus_once)
    assert contents(tmp_path / "a") == first
    assert contents(tmp_path / "b").keys() == first.keys()
    assert contents(tmp_path / "b")["data/raw_mfcc.1.ark"] != first["data/raw_mfcc.1.ark"]


@pytest.mark.parametrize("classes", [MIN_CLASSES, 300, MAX_CLASSES])
def test_every_class_has_a_state_and_frames_follow_the_tree(classes):
    """Left-to-right: after a phone's state comes its next, after its last any phone's first."""
    speech = generate(utterances=40, speakers=3, classes=classes, seed=0)
    assert len(speech.states) == classes
    assert speech.pdf.max() < classes
    assert speech.bounds[-1] == len(speech.pdf) == len(speech.features)
    assert np.isfinite(speech.features).all()
    state = speech.states[speech.pdf]
    entered = np.flatnonzero(speech.enters)
    assert np.array_equal(state[entered, 1], np.arange(len(entered)) % 3)
    changed = np.flatnonzero(np.diff(speech.pdf)) + 1
    assert np.isin(changed, entered).all()
    assert (state[speech.bounds[:-1], 0] == 0).all()  # silence first


def test_the_classes_have_a_long_tail_and_depend_on_their_neighbours():
    """The commonest tenth of the pdfs has a third of the frames; a phone's state has several."""
    speech = generate(utterances=200, speakers=4, classes=300, seed=0)
    counts = np.sort(np.bincount(speech.pdf, minlength=300))[::-1]
    assert counts[:30].sum() > counts.sum() / 3
    assert (counts > 0).sum() > 250
    leaves = np.unique(speech.states, axis=0, return_counts=True)[1]
    assert leaves.max() > 4


def test_a_linear_classifier_beats_the_prior_but_not_by_far(corpus_once):
    """Learnable: class means classify unseen speakers' frames far above the commonest class."""
    speech = generate(utterances=200, speakers=8, classes=300, seed=0)
    speaker = np.repeat(speech.speaker, np.diff(speech.bounds))
    features = speech.features.copy()
    for number in range(8):
        features[speaker == number] -= features[speaker == number].mean(0)
    features /= features.std(0)
    train, held = speaker < 6, speaker >= 6
    counts = np.bincount(speech.pdf[train], minlength=300)
    seen = np.flatnonzero(counts)
    means = np.stack([features[train & (speech.pdf == pdf)].mean(0) for pdf in seen])
    scores = 2 * features[held] @ means.T - (means**2).sum(1)
    accuracy = (seen[scores.argmax(1)] == speech.pdf[held]).mean()
    commonest = counts.max() / counts.sum()
    assert 2 * commonest < accuracy < 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "92"], "--classes: 92: must be a whole number, 93 .. 1443"),
        (["--speakers", "1"], "--speakers: 1: must be a whole number, 2"),
        (["--utterances", "3", "--speakers", "4"], "--utterances: 3: must be at least --speakers"),
    ],
)
def test_bad_options_are_named(command, tmp_path, words, message):
    done = command("prep", "mini-corpus", tmp_path / "a", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_alignments_span_both_jobs(corpus_once):
    names = [
        key for job in (1, 2) for key, _ in read_alignments(corpus_once / "ali" / f"ali.{job}.gz")
    ]
    assert names == list(read_table(corpus_once / "data" / "utt2spk"))
