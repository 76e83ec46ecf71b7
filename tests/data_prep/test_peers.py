"""kaldiio, the reader most people know, reads what the mini corpus writes, and finds the same."""

import gzip
from pathlib import Path

import kaldiio
import numpy as np

from data_prep.kaldi_alignments import read_alignments
from data_prep.kaldi_scp import MatrixReader, PathMap, read_scp


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
