"""kaldiio, the reader most people know, finds the same in the mini corpus and in real data."""

import gzip
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import MatrixReader
from data_prep.kaldi.transition_model import find_model, read_transition_model
from tests.data_prep import slow_kaldi
from tests.data_prep.tables import read_scp, read_table


def test_features_statistics_and_alignments_agree(corpus_once: Path) -> None:
    """Features to float32 rounding (ours is Kaldi's), statistics and transition-ids exactly."""
    for name, tolerance in (("feats", 1e-6), ("cmvn", 0)):
        reader = MatrixReader(PathMap())
        for entry in read_scp(corpus_once / "data" / f"{name}.scp", PathMap()).values():
            theirs = kaldiio.load_mat(f"{entry.path}:{entry.offset}")
            np.testing.assert_allclose(
                reader.read(entry), theirs, rtol=tolerance, atol=10 * tolerance
            )
        reader.close()
    packed = corpus_once / "ali" / "ali.1.gz"
    with gzip.open(packed) as file:
        theirs = dict(kaldiio.load_ark(file))
    ours = dict(read_alignments(packed))
    assert set(theirs) == set(ours)
    for key, ids in ours.items():
        np.testing.assert_array_equal(ids, theirs[key])


@pytest.mark.parametrize("part", ["train", "test"])
def test_real_lengths_and_features(digits: Path, part: str) -> None:
    """As many frames as Kaldi counted, in every utterance, and kaldiio's values in them."""
    paths = PathMap.parse([f"/home/selma/kaldi/egs/digits={digits}"], near=digits)
    said = read_table(digits / "data" / part / "utt2num_frames")
    entries = read_scp(digits / "data" / part / "feats.scp", paths)
    assert set(said) == set(entries)
    reader = MatrixReader(paths)
    for key, entry in entries.items():
        ours = reader.read(entry)
        theirs = kaldiio.load_mat(f"{entry.path}:{entry.offset}")
        assert reader.shape(entry) == ours.shape == (int(said[key]), 13)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-5)
    reader.close()


@pytest.mark.parametrize("name", ["mono", "mono_ali", "tri1"])
def test_real_pdf_counts(digits: Path, name: str) -> None:
    """Frames of each pdf, by kaldiio and a transition model read integer by integer."""
    folder = digits / "exp" / name
    path = find_model(folder)
    model = read_transition_model(path)
    pdf_of = slow_kaldi.transition_pdfs(path.read_bytes())
    assert pdf_of is not None
    assert model.num_pdfs == max(pdf_of) + 1
    ours, theirs = np.zeros((2, model.num_pdfs), np.int64)
    for file in alignment_files(folder):
        for _, ids in read_alignments(file):
            ours += np.bincount(model.pdfs(ids), minlength=model.num_pdfs)
        with gzip.open(file) as ark:
            for _, ids in kaldiio.load_ark(ark):
                for transition_id in ids.tolist():
                    theirs[pdf_of[transition_id - 1]] += 1
    assert ours.sum() > 30000
    np.testing.assert_array_equal(ours, theirs)
