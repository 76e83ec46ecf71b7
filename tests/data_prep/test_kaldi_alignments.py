"""Alignments: Kaldi's own vectors, zipped or not; no fault looks like a shorter list."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.write import write_ids
from hpcddl.common.errors import UserError

kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io as the oracle")

VECTORS = {
    "first": np.arange(1, 300, dtype=np.int32),
    "empty": np.zeros(0, np.int32),
    "large": np.array([2**31 - 1, 1, 4], np.int32),
}


def written_by_kaldi(path: Path, text: bool = False) -> bytes:
    with kaldi.Int32VectorWriter(f"ark{',t' if text else ''}:{path}") as writer:
        for key, vector in VECTORS.items():
            writer.write(key, vector.tolist())
    return path.read_bytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_kaldis_vectors(tmp_path, zipped, text):
    """In order and in full, whatever the name says about compression."""
    data = written_by_kaldi(tmp_path / "ali.1.gz", text)
    if zipped:
        (tmp_path / "ali.1.gz").write_bytes(gzip.compress(data))
    got = dict(read_alignments(tmp_path / "ali.1.gz"))
    assert list(got) == list(VECTORS)
    assert all(np.array_equal(got[key], vector) for key, vector in VECTORS.items())


def test_own_vectors_equal_kaldis(tmp_path):
    data = written_by_kaldi(tmp_path / "kaldi")
    with open(tmp_path / "own", "wb") as file:
        for key, vector in VECTORS.items():
            write_ids(file, key, vector)
    assert (tmp_path / "own").read_bytes() == data


@pytest.mark.parametrize("text", [False, True])
def test_a_cut_file_is_an_error_at_any_length(tmp_path, text):
    """Except between two records, where nothing in the file can tell; `num_jobs` and the list of
    utterances without alignment are for that.
    """
    data = written_by_kaldi(tmp_path / "ali.1", text)
    whole = {0, len(data)}
    whole |= {data.index(b"empty "), data.index(b"large ")}
    for length in set(range(0, len(data), 7 if text else 31)) | set(range(20)):
        (tmp_path / "ali.1").write_bytes(data[:length])
        if length in whole:
            continue
        with pytest.raises(UserError, match=r"ali.1:\d+: cut"):
            list(read_alignments(tmp_path / "ali.1"))


@pytest.mark.parametrize("drop", [1, 8, 100])
def test_a_cut_zip_is_an_error(tmp_path, drop):
    """Also when only the checksum at its end is gone."""
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(written_by_kaldi(tmp_path / "plain"))[:-drop])
    with pytest.raises(UserError, match=r"ali.1.gz:\d+: "):
        list(read_alignments(path))


def test_an_altered_zip_is_an_error(tmp_path):
    path = tmp_path / "ali.1.gz"
    data = bytearray(gzip.compress(written_by_kaldi(tmp_path / "plain")))
    data[-5] ^= 1  # the checksum
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC check failed"):
        list(read_alignments(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a \0B\4\2\0\0\0\4\1\0\0\0\7\2\0\0\0", "a: .*another size than 4 bytes"),
        (b"a \0B\7\2\0\0\0\4\1\0\0\0\4\2\0\0\0", "no vector of 32-bit integers"),
        (b"a \0B\4\xff\xff\xff\xff", "no vector of 32-bit integers"),
        (b"a 1 2 x\n", "a: .*no list of integers"),
        (b"a 1 2 99999999999\n", "a: .*no list of integers"),
        (b"a 1_0\n", "a: .*no list of integers"),
        (b"\n", "no utterance begins here"),
        (b" 1 2\n", "no utterance begins here"),
        (b"x" * 2000, "no utterance begins here"),
        (b"\xff\xfe 1\n", "no utterance's name"),
    ],
)
def test_garbled_records_are_named(tmp_path, data, message):
    (tmp_path / "ali.1").write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_alignments(tmp_path / "ali.1"))


@pytest.mark.parametrize("text", [False, True])
def test_records_that_are_not_wanted_are_passed_by(tmp_path, text):
    """By number, and without a look at their values; cut ones are errors all the same."""
    data = written_by_kaldi(tmp_path / "ali.1", text)
    wrong = b"x 1 2 z\n" if text else b"x \0B\4\1\0\0\0\7\0\0\0\0"
    (tmp_path / "ali.1").write_bytes(wrong + data + wrong)
    got = dict(read_alignments(tmp_path / "ali.1", {1, 3}.__contains__))
    assert list(got) == ["first", "large"]
    assert all(np.array_equal(got[key], VECTORS[key]) for key in got)
    (tmp_path / "ali.1").write_bytes(wrong + data + wrong[:-1])
    with pytest.raises(UserError, match=rf"x: .*ali.1:{len(wrong + data)}: cut"):
        list(read_alignments(tmp_path / "ali.1", {1, 3}.__contains__))


def test_long_records_and_many_short_ones(tmp_path):
    """Records longer than a block of reading, and such that begin anywhere in one."""
    rng = np.random.default_rng(0)
    lengths = [0, 200_000, 1, *rng.integers(0, 3000, 300), 60_000]
    vectors = {f"u{i}": rng.integers(1, 2**31, n).astype(np.int32) for i, n in enumerate(lengths)}
    with open(tmp_path / "ali.1", "wb") as file:
        for key, vector in vectors.items():
            write_ids(file, key, vector)
    got = dict(read_alignments(tmp_path / "ali.1"))
    assert list(got) == list(vectors)
    assert all(np.array_equal(got[key], vector) for key, vector in vectors.items())


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read the alignments"):
        list(read_alignments(tmp_path / "ali.1.gz"))


def test_files_are_in_job_order(tmp_path):
    """ali.10 after ali.9, zipped or not, and no other file that begins alike."""
    for number in range(1, 12):
        (tmp_path / f"ali.{number}{'.gz' if number % 2 else ''}").touch()
    (tmp_path / "ali.txt").touch()
    got = [int(path.name.split(".")[1]) for path in alignment_files(tmp_path)]
    assert got == list(range(1, 12))


def test_a_missing_job_is_an_error(tmp_path):
    """Its utterances would look as if they had never been aligned."""
    with pytest.raises(UserError, match="no alignments"):
        alignment_files(tmp_path)
    (tmp_path / "ali.1.gz").touch()
    (tmp_path / "ali.3.gz").touch()
    with pytest.raises(UserError, match=r"ali.2.gz is missing, expected all of 3 jobs"):
        alignment_files(tmp_path)
    (tmp_path / "ali.2.gz").touch()
    (tmp_path / "num_jobs").write_text("4\n")
    with pytest.raises(UserError, match=r"ali.4.gz is missing, expected all of 4 jobs"):
        alignment_files(tmp_path)
    (tmp_path / "num_jobs").write_text("many\n")
    with pytest.raises(UserError, match="num_jobs: 'many'"):
        alignment_files(tmp_path)


def test_one_file_and_pdf_ids(tmp_path):
    """A file of any name is itself all; files of pdf-ids have a stem of their own."""
    for name in ("ali.1.gz", "pdf.1", "some.ali"):
        (tmp_path / name).touch()
    assert alignment_files(tmp_path / "some.ali") == [tmp_path / "some.ali"]
    assert alignment_files(tmp_path, "pdf") == [tmp_path / "pdf.1"]
