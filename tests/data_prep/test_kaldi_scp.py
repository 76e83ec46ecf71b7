"""Scp files: stale paths, commands and everything else that is no file."""

from pathlib import Path

import pytest

from data_prep.kaldi_scp import Entry, MatrixReader, PathMap, read_scp, read_table
from hpcddl.errors import UserError


def entries(folder: Path, text: str, *maps: str) -> dict[str, Entry]:
    (folder / "feats.scp").write_text(text)
    return read_scp(folder / "feats.scp", PathMap.parse(maps, near=folder))


def test_entries(tmp_path):
    """Offsets, ranges and neither; spaces around are not part of the path."""
    got = entries(tmp_path, "a /x/y.ark:12\nb  z.mat \nc /x:y.ark:7[3:9]\nd w[:]\n")
    assert got == {
        "a": Entry("a", "/x/y.ark", 12),
        "b": Entry("b", "z.mat", 0),
        "c": Entry("c", "/x:y.ark", 7, (3, 9)),
        "d": Entry("d", "w", 0),
    }


@pytest.mark.parametrize(
    "value", ["copy-feats ark:x ark:- |", "| gzip > x", "touch /tmp/owned |", "gunzip -c x.gz|"]
)
def test_commands_are_refused_and_not_run(tmp_path, value):
    with pytest.raises(UserError, match=r"a command .* not run"):
        entries(tmp_path, f"a {value}\n")


@pytest.mark.parametrize("value", ["-", ":12", "x[0:5,1:3]", "x[3]", "x[a:b]"])
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
