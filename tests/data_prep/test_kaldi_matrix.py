"""Matrices equal what Kaldi's own reader makes of files that Kaldi's own writer wrote."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.matrix import read_matrix
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Entry, MatrixReader
from data_prep.kaldi.write import write_compressed, write_double
from hpcddl.common.errors import UserError
from tests.data_prep.tables import read_scp

kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io as the oracle")

METHODS = {
    "CM": kaldi.CompressionMethod.kSpeechFeature,
    "CM2": kaldi.CompressionMethod.kTwoByteAuto,
    "CM3": kaldi.CompressionMethod.kOneByteAuto,
}
KINDS = ["FM", "DM", "text", *METHODS]


def matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "plain": rng.standard_normal((40, 13)).astype(np.float32),
        "wide": (1e3 * rng.standard_normal((7, 40))).astype(np.float32),
        "short": rng.standard_normal((3, 5)).astype(np.float32),
        "single": rng.standard_normal((1, 4)).astype(np.float32),
        "constant": np.full((9, 3), 2.5, np.float32),
        "tied": rng.integers(0, 3, (50, 6)).astype(np.float32),
    }


def written_by_kaldi(folder: Path, kind: str) -> Path:
    """An ark of all matrices in one kind of record, and the scp that names them."""
    table = f"{folder / 'x.ark'},{folder / 'x.scp'}"
    if kind in METHODS:
        with kaldi.CompressedMatrixWriter(f"ark,scp:{table}") as writer:
            for key, matrix in matrices().items():
                writer.write(key, matrix, METHODS[kind])
    elif kind == "DM":
        with kaldi.DoubleMatrixWriter(f"ark,scp:{table}") as writer:
            for key, matrix in matrices().items():
                writer.write(key, matrix.astype(np.float64))
    else:
        with kaldi.FloatMatrixWriter(f"ark{',t' if kind == 'text' else ''},scp:{table}") as writer:
            for key, matrix in matrices().items():
                writer.write(key, matrix)
    return folder / "x.scp"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_equals_kaldis_reader(tmp_path, kind):
    """Values to the last bit, shapes without decoding."""
    scp = written_by_kaldi(tmp_path, kind)
    entries = read_scp(scp, PathMap())
    reader = MatrixReader(PathMap())
    Sequential = getattr(
        kaldi, "SequentialDoubleMatrixReader" if kind == "DM" else "SequentialFloatMatrixReader"
    )
    with Sequential(f"scp:{scp}") as oracle:
        seen = 0
        for key, matrix in oracle:
            want = np.asarray(matrix)
            assert reader.shape(entries[key]) == want.shape
            got = reader.read(entries[key])
            assert got.dtype == want.dtype
            assert np.array_equal(got, want), key
            seen += 1
    reader.close()
    assert seen == len(matrices())


@pytest.mark.parametrize("columns", [64, 65, 150, 300])
def test_more_columns_than_are_decoded_together(tmp_path, columns):
    """To the last bit, over values of many sizes; the buffers are used again."""
    rng = np.random.default_rng(columns)
    table = f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}"
    with kaldi.CompressedMatrixWriter(table) as writer:
        for rows in (300, 9, 1000):
            matrix = rng.standard_normal((rows, columns)) * 10 ** rng.uniform(-4, 4, columns)
            writer.write(f"u{rows}", matrix.astype(np.float32), METHODS["CM"])
    entries = read_scp(tmp_path / "x.scp", PathMap())
    reader = MatrixReader(PathMap())
    with kaldi.SequentialFloatMatrixReader(f"scp:{tmp_path / 'x.scp'}") as oracle:
        for key, matrix in oracle:
            assert np.array_equal(reader.read(entries[key]), np.asarray(matrix))
    reader.close()


RANGES = ["[0:3]", "[3:3]", "[:]", "[0:39]", "[0:40]", "[0:42]", "[39:41]"]
BAD_RANGES = ["[0:43]", "[5:2]", "[-1:3]", "[40:41]"]


@pytest.mark.parametrize("rows", RANGES + BAD_RANGES)
def test_row_ranges_follow_kaldi(tmp_path, rows):
    """Ends inclusive and clipped up to two past the last; what Kaldi rejects is rejected."""
    scp = written_by_kaldi(tmp_path, "CM")
    scp.write_text(scp.read_text().splitlines()[0] + rows + "\n")
    reader = MatrixReader(PathMap())
    entry = read_scp(scp, PathMap())["plain"]
    with kaldi.RandomAccessFloatMatrixReader(f"scp:{scp}") as oracle:
        if rows in BAD_RANGES:
            with pytest.raises(RuntimeError):
                oracle["plain"]
            for read in (reader.read, reader.shape):
                with pytest.raises(UserError, match=r"range .* does not fit 40 rows"):
                    read(entry)
        else:
            want = np.asarray(oracle["plain"])
            assert np.array_equal(reader.read(entry), want)
            assert reader.shape(entry) == want.shape
    reader.close()


@pytest.mark.parametrize("key", [key for key, m in matrices().items() if len(m) >= 5])
def test_own_compression_equals_kaldis(tmp_path, key):
    """The mini corpus's records are Kaldi's, byte for byte."""
    matrix = matrices()[key]
    with kaldi.CompressedMatrixWriter(f"ark:{tmp_path / 'kaldi.ark'}") as writer:
        writer.write(key, matrix, METHODS["CM"])
    with open(tmp_path / "own.ark", "wb") as file:
        offset = write_compressed(file, key, matrix)
    assert (tmp_path / "own.ark").read_bytes() == (tmp_path / "kaldi.ark").read_bytes()
    assert offset == len(key) + 1


def test_own_double_matrix_equals_kaldis(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((2, 14))
    with kaldi.DoubleMatrixWriter(f"ark:{tmp_path / 'kaldi.ark'}") as writer:
        writer.write("speaker", matrix)
    with open(tmp_path / "own.ark", "wb") as file:
        write_double(file, "speaker", matrix)
    assert (tmp_path / "own.ark").read_bytes() == (tmp_path / "kaldi.ark").read_bytes()


def test_compression_of_few_rows_is_refused():
    """Kaldi picks its quantiles otherwise there."""
    with pytest.raises(ValueError, match="4 rows, expected at least 5"):
        write_compressed(io.BytesIO(), "x", np.zeros((4, 2), np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_record_is_found_at_any_length(tmp_path, kind):
    """Every proper prefix of an ark is an error that names key, file and offset."""
    scp = written_by_kaldi(tmp_path, kind)
    ark = tmp_path / "x.ark"
    entry = read_scp(scp, PathMap())["plain"]
    whole = ark.read_bytes()
    end = whole.index(b"wide ")
    reader = MatrixReader(PathMap())
    for length in {*range(entry.offset, entry.offset + 30), *range(entry.offset, end, 97), end - 2}:
        ark.write_bytes(whole[:length])
        for read in (reader.shape, reader.read):
            with pytest.raises(UserError, match=rf"plain: .*x.ark:{entry.offset}: "):
                read(entry)
        reader.close()


FAULTS = [
    (b"PKL \x80\x04", "a Python pickle, which could run any code"),
    (b"\0BPKL \x80\x04", "a Python pickle, which could run any code"),
    (b"\0BFV \4\1\0\0\0aaaa", "a vector, expected a matrix"),
    (b"\0BXX aaaaaaaaaaaaaaaaa", "no Kaldi matrix begins here"),
    (b"RIFF....", "no Kaldi matrix begins here"),
    (b"\0BFM \4" + struct.pack("<ibi", 2**30, 4, 2**30), "garbled: 1073741824 x 1073741824 values"),
    (b"\0BFM \4" + struct.pack("<ibi", 2**14, 4, 2**14), "cut: "),
    (b"\0BFM \4" + struct.pack("<ibi", -1, 4, 4), "garbled: -1 x 4 values"),
    (b"\0BFM \4" + struct.pack("<ibi", 2**30, 4, 0), "garbled: 1073741824 x 0 values"),
    (b"\0BCM2 " + struct.pack("<ffii", 0, np.inf, 1, 1) + b"aa", "garbled: values from 0.0 over"),
    (b"\0BCM " + struct.pack("<ffii", np.nan, 1, 1, 1) + b"aa", "garbled: values from nan over"),
    (b" [\n 1 2_0 ]\n", "no matrix of numbers"),
    (b"\0BFM \7" + struct.pack("<ibi", 1, 4, 1) + b"aaaa", "sizes of integers 7 and 4, not 4"),
    (b"\0BCM " + struct.pack("<ffii", 0, 1, 5, -2), "garbled: 5 x -2 values"),
    (b" [\n 1 2\n 3 x ]\n", "no matrix of numbers"),
    (b" [\n 1 2\n 3 ]\n", "no matrix of numbers"),
]


@pytest.mark.parametrize(("data", "message"), FAULTS)
def test_what_is_no_matrix_is_refused(tmp_path, data, message):
    """Pickles would run code, garbled sizes would allocate the machine's memory."""
    (tmp_path / "x.ark").write_bytes(b"key " + data)
    reader = MatrixReader(PathMap())
    for read in (reader.shape, reader.read):
        with pytest.raises(UserError, match=message):
            read(Entry("key", str(tmp_path / "x.ark"), 4))
    reader.close()


def test_an_empty_matrix_has_no_rows(tmp_path):
    """Kaldi writes 0 x 0 for a file without frames."""
    (tmp_path / "x").write_bytes(b"\0BFM \4" + struct.pack("<ibi", 0, 4, 0))
    with open(tmp_path / "x", "rb") as file:
        assert read_matrix(file).shape == (0, 0)
