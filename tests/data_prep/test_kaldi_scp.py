"""Scp files: stale paths, commands and everything else that is no file."""

import gzip
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Entry, MatrixReader, parse_entry
from data_prep.kaldi.write import write_double
from hpcddl.common.errors import UserError
from tests.data_prep.tables import read_scp, read_table

kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io as the oracle")


def entries(folder: Path, text: str, *maps: str) -> dict[str, Entry]:
    (folder / "feats.scp").write_text(text)
    return read_scp(folder / "feats.scp", PathMap.parse(maps, near=folder))


def test_entries(tmp_path):
    """Offsets, ranges and neither; spaces around are not part of the path."""
    got = entries(
        tmp_path,
        "a /x/y.ark:12\nb  z.mat \nc /x:y.ark:7[3:9]\nd w[:]\ne w[:,2:5]\nf w:3[0:1,:]\n",
    )
    assert got == {
        "a": Entry("a", "/x/y.ark", 12),
        "b": Entry("b", "z.mat", 0),
        "c": Entry("c", "/x:y.ark", 7, (3, 9)),
        "d": Entry("d", "w", 0),
        "e": Entry("e", "w", 0, None, (2, 5)),
        "f": Entry("f", "w", 3, (0, 1)),
    }


@pytest.mark.parametrize(
    "value", ["copy-feats ark:x ark:- |", "| gzip > x", "touch /tmp/owned |", "gunzip -c x.gz|"]
)
def test_commands_are_refused_and_not_run(tmp_path, value):
    with pytest.raises(UserError, match=r"a: a command .* not run"):
        entries(tmp_path, f"a {value}\n")


@pytest.mark.parametrize(
    "value", ["-", ":12", "x[3]", "x[a:b]", "x[]", "x[,0:1]", "x[0:1,]", "x[:,:,:]", "[0:3]"]
)
def test_what_names_no_rows_of_a_file_is_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"feats.scp: a: "):
        entries(tmp_path, f"a {value}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a x\na y\n", "feats.scp:2: a occurs twice"),
        ("a x\nb\n", "feats.scp:2: 'b': expected a key"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        entries(tmp_path, text)


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match="utt2spk: cannot read it"):
        read_table(tmp_path / "utt2spk")


@pytest.mark.parametrize(
    ("path", "mapped"),
    [
        ("/old/egs/a.ark", "/new/a.ark"),
        ("/old/egs", "/new"),
        ("/old/egs2/a.ark", "/old/egs2/a.ark"),
        ("/x/old/egs/a.ark", "/x/old/egs/a.ark"),
        ("mfcc/a.ark", "/m/a.ark"),
    ],
)
def test_prefixes_are_replaced_by_whole_folders(path, mapped):
    maps = PathMap.parse(["/old/egs=/new", "mfcc/=/m"], near=Path())
    assert maps.apply(path) == mapped


@pytest.mark.parametrize("word", ["/old", "=/new", "/old="])
def test_bad_map_is_named(word):
    with pytest.raises(UserError, match=f"--map {word}: expected OLD=NEW"):
        PathMap.parse([word], near=Path())


def test_a_stale_path_is_met_with_the_map_that_finds_it(tmp_path):
    """The longest tail of the stale path that exists under the data folder or above it."""
    data = tmp_path / "egs" / "data" / "train"
    (tmp_path / "egs" / "mfcc").mkdir(parents=True)
    data.mkdir(parents=True)
    (tmp_path / "egs" / "mfcc" / "raw.ark").write_bytes(b"")
    reader = MatrixReader(PathMap(near=data))
    with pytest.raises(UserError, match=f"--map /home/x/digits={tmp_path}/egs$"):
        reader.read(Entry("a", "/home/x/digits/mfcc/raw.ark", 0))
    with pytest.raises(UserError, match=r"a: /home/x/none.ark: No such file .* give --map OLD=NEW"):
        reader.read(Entry("a", "/home/x/none.ark", 0))


COLUMN_RANGES = ["[:,0:2]", "[:,3:3]", "[2:4,1:6]", "[0:11,:]", "[8:11,0:0]"]
BAD_COLUMN_RANGES = ["[:,0:7]", "[:,3:2]", "[:,-1:2]", "[0:13,:]"]


@pytest.mark.parametrize("kind", ["FM", "CM"])
@pytest.mark.parametrize("part", COLUMN_RANGES + BAD_COLUMN_RANGES)
def test_column_ranges_follow_kaldi(tmp_path, kind, part):
    """As Kaldi's own reader: rows up to two past the last, columns exactly."""
    matrix = np.random.default_rng(0).standard_normal((10, 7)).astype(np.float32)
    table = f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}"
    if kind == "FM":
        with kaldi.FloatMatrixWriter(table) as writer:
            writer.write("a", matrix)
    else:
        with kaldi.CompressedMatrixWriter(table) as writer:
            writer.write("a", matrix, kaldi.CompressionMethod.kSpeechFeature)
    scp = tmp_path / "x.scp"
    scp.write_text(scp.read_text().strip() + part + "\n")
    entry = read_scp(scp, PathMap())["a"]
    with (
        closing(MatrixReader(PathMap())) as reader,
        kaldi.RandomAccessFloatMatrixReader(f"scp:{scp}") as oracle,
    ):
        if part in BAD_COLUMN_RANGES:
            with pytest.raises(RuntimeError):
                oracle["a"]
            for read in (reader.read, reader.shape):
                with pytest.raises(UserError, match=r"a: .*x.ark:2: range .* does not fit"):
                    read(entry)
            return
        want = np.asarray(oracle["a"])
        assert np.array_equal(reader.read(entry), want)
        assert reader.shape(entry) == want.shape
        filled = np.empty(want.shape, np.float32)
        reader.read_into(entry, lambda rows, columns: filled[:rows, :columns])
        assert np.array_equal(filled, want)


def ark(path: Path) -> bytes:
    """An archive of 'a' and 'b'."""
    with open(path, "wb") as file:
        for key, number in (("a", 1.0), ("b", 2.0)):
            write_double(file, key, np.full((3, 2), number))
    return path.read_bytes()


def test_commands_run_when_allowed(tmp_path):
    """By a shell, to their end, with ranges; what comes after the matrix is read and ignored."""
    data = ark(tmp_path / "x")
    at = data.index(b"b \0B") + 2
    scp = tmp_path / "feats.scp"
    with closing(MatrixReader(PathMap())) as reader:
        for value, rows in (
            (f"tail -c +{at + 1} {tmp_path}/x | cat |", 3),
            (f"tail -c +{at + 1} {tmp_path}/x; head -c 9000000 /dev/zero |", 3),
            (f"tail -c +{at + 1} {tmp_path}/x |[1:2]", 2),
        ):
            entry = parse_entry(scp, "b", value, PathMap(), allow_pipes=True)
            assert np.array_equal(reader.read(entry), np.full((rows, 2), 2.0))
            assert reader.shape(entry) == (rows, 2)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tail -c +3 X; echo no disk >&2; exit 3", r"a: 'tail .*' ended with status 3: no disk"),
        ("cat missing", r"a: 'cat missing' ended with status 1: .*No such file"),
        ("tail -c +3 X; kill -9 $$", r"ended with status -9"),
        ("tail -c +3 X | head -c 20", r"a: cut: .*48 bytes"),
        ("true", r"a: "),
    ],
)
def test_commands_that_fail_are_errors(tmp_path, command, message):
    """Whatever they have written before; an empty output is no matrix."""
    ark(tmp_path / "X")
    value = command.replace("X", f"{tmp_path}/X") + " |"
    entry = parse_entry(tmp_path / "feats.scp", "a", value, PathMap(), allow_pipes=True)
    with closing(MatrixReader(PathMap())) as reader:
        for read in (reader.read, reader.shape):
            with pytest.raises(UserError, match=message):
                read(entry)


@pytest.mark.parametrize("value", ["| gzip > x", "-", "|", " |"])
def test_commands_to_write_to_and_standard_input_are_never_allowed(tmp_path, value):
    with pytest.raises(UserError, match=r"feats.scp: a: "):
        parse_entry(tmp_path / "feats.scp", "a", value, PathMap(), allow_pipes=True)


def test_zipped_archives(tmp_path):
    """Offsets count unzipped bytes, in any order."""
    data = ark(tmp_path / "x")
    (tmp_path / "x").write_bytes(gzip.compress(data))
    b = Entry("b", str(tmp_path / "x"), data.index(b"b \0B") + 2)
    a = Entry("a", str(tmp_path / "x"), 2)
    with closing(MatrixReader(PathMap())) as reader:
        for entry, number in ((a, 1.0), (b, 2.0), (a, 1.0)):
            assert np.array_equal(reader.read(entry), np.full((3, 2), number))
            assert reader.shape(entry) == (3, 2)


def test_cut_and_garbled_zips_name_the_utterance(tmp_path):
    """In the record, or behind it in what must be unzipped to know that the record is whole."""
    packed = gzip.compress(ark(tmp_path / "x"))
    entry = Entry("a", str(tmp_path / "x"), 2)
    for data in (packed[:20], packed[:-20], packed[:12] + b"\xff" * 20 + packed[32:]):
        (tmp_path / "x").write_bytes(data)
        with (
            closing(MatrixReader(PathMap())) as reader,
            pytest.raises(UserError, match=r"a: .*x:2: "),
        ):
            reader.read(entry)
