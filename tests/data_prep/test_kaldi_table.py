"""Tables on disk: the same answers as a dictionary, sorted or not, and every fault named."""

import random
import tracemalloc
from pathlib import Path

import pytest

from data_prep.kaldi import table as kaldi_table
from data_prep.kaldi.table import Line, Table
from hpcddl.common.errors import UserError


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "utt2spk"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def entries(count: int) -> dict[str, str]:
    # Keys of several lengths, some the beginning of others, some not ASCII.
    keys = {f"sp{i % 3}-{'é' * (i % 2)}{i * 7919 % 1009:x}" for i in range(count)}
    return {key: f"value {i}" for i, key in enumerate(sorted(keys, key=str.encode))}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_lookups_equal_a_dictionary(tmp_path, count, shuffled):
    """In file order, in any other, for keys that are not there, and by offset."""
    want = entries(count)
    keys = list(want)
    if shuffled:
        random.Random(0).shuffle(keys)
    path = written(tmp_path, [f"{key} {want[key]}" for key in keys])
    data = path.read_bytes()
    with Table(path) as table:
        assert len(table) == len(want)
        assert [line.key for line in table] == keys
        for order in (keys, keys[::-1], sorted(keys, key=hash)):
            for key in order:
                line = table.find(key)
                assert line is not None
                assert (line.key, line.value) == (key, want[key])
                assert data[line.offset :].startswith(f"{key} ".encode())
                assert keys[line.number] == key
                assert table.at(line.offset) == line
        for key in ("", "a", "sp1", "zz", "sp1-é"):
            assert table.find(key) is None


@pytest.mark.parametrize("text", ["a 1\nb\t 2 3 \nc 4", "a 1\r\n  b 2 3\r\nc   4\r\n"])
def test_spaces_and_the_last_line(tmp_path, text):
    """Any blanks separate, those around are no part of a value; the last line may lack its end."""
    (tmp_path / "x").write_bytes(text.encode())
    with Table(tmp_path / "x") as table:
        assert [(line.key, line.value) for line in table] == [("a", "1"), ("b", "2 3"), ("c", "4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a x\na y\n", "utt2spk:2: a occurs twice"),
        (b"b x\na y\nb z\n", "utt2spk:3: b occurs twice"),
        (b"a x\nb\n", "utt2spk:2: 'b': expected a key and a value"),
        (b"a x\nb \n", "utt2spk:2: 'b': expected a key and a value"),
        (b"a x\n\nb y\n", "utt2spk:2: '': expected a key and a value"),
        (b"a x\nb \xff\n", "utt2spk:2: no UTF-8"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, text, message):
    (tmp_path / "utt2spk").write_bytes(text)
    with pytest.raises(UserError, match=message):
        Table(tmp_path / "utt2spk")


def test_a_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"utt2spk: cannot read it \(No such file"):
        Table(tmp_path / "utt2spk")


def test_an_unsorted_table_may_not_be_too_long(tmp_path, monkeypatch):
    """Each of its lines takes memory, those of a sorted one do not."""
    monkeypatch.setattr(kaldi_table, "_MAX_UNSORTED", 100)
    lines = [f"u{i:03d} x" for i in range(101)]
    with Table(written(tmp_path, lines)) as table:
        assert len(table) == 101
    with Table(written(tmp_path, lines[:0:-1])) as table:
        assert len(table) == 100
    with pytest.raises(UserError, match=r"not sorted, allowed up to 100 lines; .*LC_ALL=C sort"):
        Table(written(tmp_path, lines[::-1]))


def test_keys_with_equal_hashes_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(kaldi_table, "hash", len, raising=False)
    with Table(written(tmp_path, ["b 1", "a 2", "c 3", "aa 4"])) as table:
        found = [table.find(key) for key in ("a", "b", "c", "aa")]
        assert [line.value for line in found if line] == ["2", "1", "3", "4"]
        assert table.find("d") is None


def test_an_offset_inside_a_line_is_an_error(tmp_path):
    with Table(written(tmp_path, ["a 1", "b 2"])) as table:
        assert table.at(4) == Line(1, 4, "b", "2")
        for offset in (1, 5, 8, 1000):
            with pytest.raises(UserError, match=f"no line begins at byte {offset}: has it changed"):
                table.at(offset)


def test_memory_does_not_grow_with_a_sorted_table(tmp_path):
    """Less than a twentieth of the file is held."""
    path = written(
        tmp_path, [f"utterance-{i:07d} /some/where/raw_mfcc.1.ark:{i}" for i in range(50000)]
    )
    tracemalloc.start()
    try:
        with Table(path) as table:
            assert all(table.find(f"utterance-{i:07d}") for i in range(0, 50000, 500))
            held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < path.stat().st_size / 20
