"""Cut, altered and absurd files: an error, or exactly what the bytes say by a slow decoder.

Never another exception, and never memory for more than the file holds.
"""

import gzip
import io
import re
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_prep.kaldi.alignments import read_alignments
from data_prep.kaldi.matrix import BadRecordError, MatrixDecoder, read_shape
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import Entry, MatrixReader, parse_entry
from data_prep.kaldi.table import Table
from data_prep.kaldi.transition_model import read_transition_model
from data_prep.kaldi.write import transition_model_bytes
from hpcddl.common.errors import UserError
from tests.data_prep import slow_kaldi

kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io to write records")

ROWS, COLUMNS = 7, 3
METHODS = {
    "CM": kaldi.CompressionMethod.kSpeechFeature,
    "CM2": kaldi.CompressionMethod.kTwoByteAuto,
    "CM3": kaldi.CompressionMethod.kOneByteAuto,
}
KINDS = ["FM", "DM", "text", *METHODS]
# What an absurd size may cost beyond the file: one chunk of reading, and a little.
SPARE_BYTES = 4 << 20

repeatable = settings(
    derandomize=True,
    max_examples=250,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Tally = Counter[str]


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """Cases by outcome; shown at the end with -s."""
    counts: Tally = Counter()
    yield counts
    print(f"\n{sum(counts.values())} cases:", dict(counts))


def record(folder: Path, kind: str) -> bytes:
    """One matrix as Kaldi writes it, without its key."""
    matrix = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    path = folder / f"{kind}.ark"
    if kind in METHODS:
        with kaldi.CompressedMatrixWriter(f"ark:{path}") as writer:
            writer.write("u", matrix, METHODS[kind])
    elif kind == "DM":
        with kaldi.DoubleMatrixWriter(f"ark:{path}") as writer:
            writer.write("u", matrix.astype(np.float64))
    else:
        with kaldi.FloatMatrixWriter(f"ark{',t' if kind == 'text' else ''}:{path}") as writer:
            writer.write("u", matrix)
    return path.read_bytes()[2:]


Result = TypeVar("Result")


def outcome(call: Callable[[], Result]) -> tuple[Result | None, str]:
    """What it returns, or None and the error that is the user's."""
    try:
        return call(), ""
    except UserError as error:
        return None, str(error)


def flips(data: bytes) -> Iterator[bytes]:
    """With each single bit turned over."""
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def same(got: np.ndarray, want: np.ndarray | None) -> bool:
    """Equal; what is smaller than any normal float may lose its last bits."""
    return (
        want is not None
        and got.shape == want.shape
        and np.allclose(got, want, rtol=0, atol=1e-37, equal_nan=True)
    )


def judge_matrix(data: bytes, tally: Tally) -> bool:
    """Whether the record was read; all ways to read it agree."""
    decoder = MatrixDecoder()
    try:
        got = decoder.read(io.BytesIO(data))
    except BadRecordError:
        tally["matrix: error"] += 1
        with pytest.raises(BadRecordError):
            decoder.read_into(io.BytesIO(data), lambda *shape: np.empty(shape, np.float32), None)
        return False
    tally["matrix: right data"] += 1
    assert same(got, slow_kaldi.matrix(data))
    assert read_shape(io.BytesIO(data)) == got.shape
    filled = []

    def room(rows: int, columns: int) -> np.ndarray:
        filled.append(np.empty((rows, columns), np.float32))
        return filled[0]

    with np.errstate(all="ignore"):
        decoder.read_into(io.BytesIO(data), room, None)
        assert np.array_equal(filled[0], got.astype(np.float32), equal_nan=True)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_cut_matrices(tmp_path, kind, tally):
    """Every proper beginning of a record is an error, in its file and zipped."""
    data = record(tmp_path, kind)
    whole = data.index(b"]") + 1 if kind == "text" else len(data)
    for length in range(len(data)):
        assert judge_matrix(data[:length], tally) == (length >= whole)
        with pytest.raises(BadRecordError) if length < whole else nothing():
            read_shape(io.BytesIO(data[:length]))
    packed = gzip.compress(b"u " + data)
    with closing(MatrixReader(PathMap())) as reader:
        for length in range(len(packed)):
            (tmp_path / "x").write_bytes(packed[:length])
            for read in (reader.read, reader.shape):
                with pytest.raises(UserError, match=r"^u: .*/x:2: "):
                    read(Entry("u", str(tmp_path / "x"), 2))
                reader.close()
            tally["zipped matrix: error"] += 1


class nothing:
    """A context that expects no error."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_with_a_bit_turned_over(tmp_path, kind, tally):
    for data in flips(record(tmp_path, kind)):
        judge_matrix(data, tally)


@pytest.mark.parametrize("kind", KINDS)
def test_zipped_matrices_with_a_bit_turned_over(tmp_path, kind, tally):
    """The checksum finds all that changes the data."""
    data = record(tmp_path, kind)
    with closing(MatrixReader(PathMap())) as reader:
        for changed in flips(gzip.compress(b"u " + data)):
            (tmp_path / "x").write_bytes(changed)
            try:
                got = reader.read(Entry("u", str(tmp_path / "x"), 2))
            except UserError:
                tally["zipped matrix: error"] += 1
            else:
                tally["zipped matrix: right data"] += 1
                assert same(got, slow_kaldi.matrix(data))
            reader.close()


def edits() -> st.SearchStrategy[list[tuple[float, int, bytes]]]:
    """Places, as parts of the whole, lengths taken out and bytes put in."""
    return st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), max_size=4
    )


def edited(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for part, length, new in changes:
        place = int(part * len(data))
        data = data[:place] + new + data[place + length :]
    return data


@pytest.mark.parametrize("kind", KINDS)
@repeatable
@given(edits())
def test_edited_matrices(tmp_path, kind, tally, changes):
    judge_matrix(edited(record(tmp_path, kind), changes), tally)


@repeatable
@given(st.binary(max_size=80))
@example(b"")
def test_random_bytes_are_no_matrix_or_what_they_say(tally, data):
    for start in (b"", b" [ ", b"\0B", b"\0BCM ", b"\0BFM \4"):
        judge_matrix(start + data, tally)


SIZES = [-(2**31), -1, 0, 1, COLUMNS, ROWS, 2**16, 2**28, 2**31 - 1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
@pytest.mark.parametrize("zipped", [False, True])
def test_absurd_sizes_take_no_memory(tmp_path, kind, zipped, tally):
    """Swapped, negative, huge and empty ones."""
    data = record(tmp_path, kind)
    head = len(kind) + 3
    tracemalloc.start()
    try:
        with closing(MatrixReader(PathMap())) as reader:
            for rows in SIZES:
                for columns in SIZES:
                    sizes = struct.pack("<ii", rows, columns)
                    if kind in METHODS:
                        changed = data[: head + 8] + sizes + data[head + 16 :]
                    else:
                        sizes = b"\4" + sizes[:4] + b"\4" + sizes[4:]
                        changed = data[:head] + sizes + data[head + 10 :]
                    if not zipped:
                        judge_matrix(changed, tally)
                    whole = b"u " + changed
                    (tmp_path / "x").write_bytes(gzip.compress(whole) if zipped else whole)
                    for read in (reader.shape, reader.read):
                        try:
                            read(Entry("u", str(tmp_path / "x"), 2))
                            tally["absurd size: right data"] += 1
                        except UserError:
                            tally["absurd size: error"] += 1
                        reader.close()
        assert tracemalloc.get_traced_memory()[1] < SPARE_BYTES
    finally:
        tracemalloc.stop()


VECTORS = {"one": [5, 2**31 - 1, 3], "two": [], "three": [1, 2]}


def alignment(folder: Path, text: bool) -> bytes:
    """Three utterances as Kaldi writes them."""
    with kaldi.Int32VectorWriter(f"ark{',t' if text else ''}:{folder / 'ali'}") as writer:
        for key, vector in VECTORS.items():
            writer.write(key, vector)
    return (folder / "ali").read_bytes()


def judge_alignments(path: Path, data: bytes, tally: Tally) -> bool:
    """Whether the file was read to its end; records are numbered alike when passed by."""
    path.write_bytes(data)
    got, fault = outcome(lambda: [(key, ids.tolist()) for key, ids in read_alignments(path)])
    if got is None:
        assert f"{path}:" in fault
        tally["alignments: error"] += 1
        return False
    tally["alignments: right data"] += 1
    assert got == slow_kaldi.alignments(
        gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    )
    second = [(key, ids.tolist()) for key, ids in read_alignments(path, lambda n: n == 1)]
    assert second == got[1:2]
    return True


@pytest.mark.parametrize("text", [False, True])
def test_cut_alignments(tmp_path, text, tally):
    """An error but between two records; always in a zipped file."""
    data = alignment(tmp_path, text)
    whole = {0, data.index(b"two "), data.index(b"three "), len(data)}
    for length in range(len(data) + 1):
        assert judge_alignments(tmp_path / "x", data[:length], tally) == (length in whole)
    packed = gzip.compress(data)
    for length in range(len(packed) + 1):
        whole_zip = length == len(packed)
        assert judge_alignments(tmp_path / "x.gz", packed[:length], tally) == whole_zip


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_alignments_with_a_bit_turned_over(tmp_path, zipped, text, tally):
    data = alignment(tmp_path, text)
    for changed in flips(gzip.compress(data) if zipped else data):
        judge_alignments(tmp_path / "x", changed, tally)


@pytest.mark.parametrize("text", [False, True])
@repeatable
@given(edits())
def test_edited_alignments(tmp_path, text, tally, changes):
    judge_alignments(tmp_path / "x", edited(alignment(tmp_path, text), changes), tally)


@pytest.mark.parametrize("count", [-1, 4, 2**27, 2**28, 2**28 + 1, 2**31 - 1])
def test_absurd_counts_take_no_memory(tmp_path, count, tally):
    tracemalloc.start()
    try:
        data = b"u \0B\4" + struct.pack("<i", count) + b"\4\1\0\0\0" * 3
        assert not judge_alignments(tmp_path / "x", data, tally)
        assert tracemalloc.get_traced_memory()[1] < SPARE_BYTES
    finally:
        tracemalloc.stop()


def model_bytes() -> bytes:
    tuples = np.array([[1, 0, 0], [1, 1, 1], [2, 0, 2], [2, 1, 1]], np.int32)
    return transition_model_bytes(2, 2, tuples, np.full(4, 0.6))


def judge_model(path: Path, data: bytes, tally: Tally) -> bool:
    path.write_bytes(data)
    try:
        got = read_transition_model(path).pdf[1:].tolist()
    except UserError:
        tally["model: error"] += 1
        return False
    tally["model: right data"] += 1
    assert got == slow_kaldi.transition_pdfs(data)
    return True


def test_cut_models(tmp_path, tally):
    """An error up to the end of the tuples; what follows is not read."""
    data = model_bytes()
    end = data.index(b"</Triples> ") + len(b"</Triples> ")
    for length in range(len(data)):
        assert judge_model(tmp_path / "final.mdl", data[:length], tally) == (length >= end)


def test_models_with_a_bit_turned_over(tmp_path, tally):
    for data in flips(model_bytes()):
        judge_model(tmp_path / "final.mdl", data, tally)


@repeatable
@given(edits())
def test_edited_models(tmp_path, tally, changes):
    judge_model(tmp_path / "final.mdl", edited(model_bytes(), changes), tally)


def test_a_model_that_multiplies_takes_no_memory(tmp_path, tally):
    """Many tuples of a state with many transitions: a short file says a long list."""
    arcs = 3000
    ints = lambda *values: b"".join(struct.pack("<bi", 4, v) for v in values)  # noqa: E731
    data = b"\0B<TransitionModel> <Topology> "
    data += ints(1) + struct.pack("<i", 1) + ints(2) + struct.pack("<ii", -1, 0)
    data += ints(1, 1, 0, arcs) + (ints(0) + struct.pack("<bf", 4, 0.5)) * arcs
    data += b"</Topology> <Triples> " + ints(arcs) + ints(1, 0, 0) * arcs + b"</Triples> "
    assert not judge_model(tmp_path / "final.mdl", data, tally)


PARTS = ["x", "y.ark", ":", "1", "23", "٣", "[", "]", ",", "-", "|", " ", "/"]
_SAID = re.compile(r"(.*?)(?::([0-9]+))?(?:\[([^\]]*)\])?", re.DOTALL)


@repeatable
@given(st.text(max_size=12) | st.lists(st.sampled_from(PARTS), max_size=9).map("".join))
@example("x:1[0:1,2:3]")
@example("x:1[:,:]")
@example("x[-1:2]")
@example("x |[0:1]")
def test_scp_values(tally, value):
    """What is accepted is what a pattern finds there, and never a command."""
    entry, fault = outcome(lambda: parse_entry(Path("feats.scp"), "u", value, PathMap()))
    if entry is None:
        assert fault.startswith("feats.scp: u: ")
        tally["scp value: error"] += 1
        return
    tally["scp value: right data"] += 1
    said = _SAID.fullmatch(value)
    assert not entry.command
    assert "|" not in (entry.path[0], entry.path[-1])
    assert entry.path != "-"
    assert (entry.path, entry.offset) == (said[1], int(said[2] or 0))
    words = (said[3] or ":").split(",")
    ranges = [None if word == ":" else tuple(map(int, word.split(":"))) for word in words]
    assert [entry.rows, entry.columns][: len(ranges)] == ranges


@repeatable
@given(st.lists(st.from_regex(rb"[abc\xc3\xa9]{1,3}[ \t]{1,2}[xy\xa9 ]{0,2}x", fullmatch=True)))
@example([b"a x", b"", b"b y"])
@example([b"b x", b"a x", b"b y"])
def test_tables(tmp_path, tally, lines):
    """Any bytes are a table of unique keys, or an error."""
    data = b"\n".join(lines)
    path = tmp_path / "utt2spk"
    path.write_bytes(data)
    pairs = [line.split(None, 1) for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        pairs.pop()

    def read() -> dict[bytes, bytes]:
        with Table(path) as table:
            lines = list(table)
            assert all(table.find(line.key) == line for line in lines)
            return {line.key.encode(): line.value.encode() for line in lines}

    got, fault = outcome(read)
    if got is None:
        assert fault.startswith(f"{path}:")
        tally["table: error"] += 1
        return
    tally["table: right data"] += 1
    assert got == {key: value.rstrip() for key, value in pairs}
    assert len(got) == len(pairs)


def test_the_number_of_cases(tally, request):
    """The suite is as large as it says; only where all of it ran."""
    if request.session.testscollected > 60:
        assert sum(tally.values()) > 10000
