"""Feature folders pasted frame by frame, against Kaldi's readers and a reference in doubles."""

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.kaldi.features import CmvnOptions
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import MatrixReader
from data_prep.kaldi.streams import Found, StreamOptions, Streams
from data_prep.kaldi.write import write_double
from hpcddl.common.errors import UserError
from tests.data_prep.tables import read_scp, read_table

kaldi = pytest.importorskip("kaldi_native_io", reason="needs kaldi_native_io as the oracle")

PLAIN = StreamOptions(Path(), cmvn="none", delta_order=0)
LENGTHS = {"a-1": 40, "a-2": 123, "b-1": 57}
Matrices = dict[str, NDArray[np.float32]]


def folder(
    path: Path, matrices: Matrices, *, compressed: bool = False, name: str = "feats"
) -> Path:
    """A data folder as Kaldi writes it; the matrices of a compressed one become what it holds."""
    path.mkdir()
    table = f"ark,scp:{path / name}.ark,{path / name}.scp"
    if compressed:
        with kaldi.CompressedMatrixWriter(table) as writer:
            for key, matrix in matrices.items():
                writer.write(key, matrix, kaldi.CompressionMethod.kSpeechFeature)
    else:
        with kaldi.FloatMatrixWriter(table) as writer:
            for key, matrix in matrices.items():
                writer.write(key, matrix)
    with kaldi.SequentialFloatMatrixReader(f"scp:{path / name}.scp") as reader:
        matrices.update({key: np.array(matrix) for key, matrix in reader})
    return path


def statistics(matrices: Matrices, speaker: str = "") -> NDArray[np.float64]:
    """Kaldi's sums over a speaker's utterances, or all."""
    frames = np.concatenate([m for key, m in matrices.items() if key.startswith(speaker)])
    frames = frames.astype(np.float64)
    return np.stack([np.append(frames.sum(0), len(frames)), np.append((frames**2).sum(0), 0)])


def write_cmvn(path: Path, matrices: Matrices) -> None:
    with open(path / "cmvn.ark", "wb") as ark, open(path / "cmvn.scp", "w") as scp:
        for speaker in ("a", "b"):
            offset = write_double(ark, speaker, statistics(matrices, speaker))
            scp.write(f"{speaker} {path / 'cmvn.ark'}:{offset}\n")


def random(columns: int, lengths: dict[str, int] = LENGTHS, seed: int = 0) -> Matrices:
    rng = np.random.default_rng((seed, columns))
    return {
        key: (3 + 5 * rng.standard_normal((n, columns))).astype(np.float32)
        for key, n in lengths.items()
    }


def normalised(
    matrix: NDArray, stats: NDArray, variances: bool = False, skip: tuple[int, ...] = ()
) -> NDArray[np.float64]:
    """apply-cmvn in doubles."""
    mean = stats[0, :-1] / stats[0, -1]
    scale = 1 / np.sqrt(stats[1, :-1] / stats[0, -1] - mean**2) if variances else np.ones_like(mean)
    mean[list(skip)], scale[list(skip)] = 0, 1
    return (matrix - mean) * scale


def with_deltas(matrix: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """add-deltas in doubles, on frames that go on beyond the edges."""
    blocks, reach = [], 2 * order
    slopes = np.pad(matrix, ((reach, reach), (0, 0)), mode="edge")
    for _ in range(order + 1):
        blocks.append(slopes[reach : len(slopes) - reach])
        slopes = sum(k * np.roll(slopes, -k, axis=0) for k in range(-2, 3)) / 10
    return np.concatenate(blocks, axis=1)


Open = Callable[..., Streams]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Streams of options, closed at the end."""
    made: list[Streams] = []

    def open_streams(*options: StreamOptions, **words: object) -> Streams:
        made.append(Streams(options, PathMap(), **words))
        return made[-1]

    yield open_streams
    for streams in made:
        streams.close()


def read(streams: Streams, utterance: str) -> NDArray[np.float32]:
    """All frames, copied."""
    found = streams.survey(utterance)
    assert isinstance(found, Found)
    speaker = utterance.partition("-")[0]
    return streams.read(utterance, speaker, found.shortest).copy()


def test_the_260_features_of_the_papers(tmp_path, opened):
    """40 fMLLR, 100 of i-vectors and 40 log-mel with deltas equal a reference in doubles."""
    fmllr, mel = random(40), random(40, seed=1)
    ivectors = random(100, {key: -(-n // 10) - (key == "a-2") for key, n in LENGTHS.items()})
    ivectors["b-1"] = ivectors["b-1"][:2]  # ends early: the last row goes on
    folder(tmp_path / "fmllr", fmllr)
    folder(tmp_path / "ivectors", ivectors, name="ivector_online")
    (tmp_path / "ivectors" / "ivector_period").write_text("10\n")
    folder(tmp_path / "mel", mel, compressed=True)
    write_cmvn(tmp_path / "mel", mel)
    defaults = StreamOptions(Path())
    streams = opened(
        StreamOptions.parse(f"{tmp_path}/fmllr,cmvn=none,delta-order=0", defaults),
        StreamOptions.parse(f"{tmp_path}/ivectors", defaults),
        StreamOptions.parse(f"{tmp_path}/mel,norm-vars=true", defaults),
    )
    assert len(streams) == 3
    for key, frames in LENGTHS.items():
        got = read(streams, key)
        rows = np.minimum(np.arange(frames) // 10, len(ivectors[key]) - 1)
        stats = statistics(mel, key[0])
        want = np.concatenate(
            [
                fmllr[key],
                ivectors[key][rows],
                with_deltas(normalised(mel[key], stats, True), 2),
            ],
            axis=1,
        )
        assert got.dtype == np.float32
        assert got.shape == (frames, 260)
        assert np.array_equal(got[:, :140], want[:, :140])
        assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
    assert streams.dimension == 260


def test_real_features(digits):
    """Through stale paths, per-speaker statistics and deltas, equal a reference in doubles."""
    paths = PathMap.parse([f"/home/selma/kaldi/egs/digits={digits}"], near=digits)
    train = digits / "data" / "train"
    speakers = read_table(train / "utt2spk")
    features, stats = read_scp(train / "feats.scp", paths), read_scp(train / "cmvn.scp", paths)
    options = StreamOptions(train, cmvn_options=CmvnOptions(norm_vars=True))
    with Streams([options], paths) as streams, closing(MatrixReader(paths)) as reader:
        for key, speaker in list(speakers.items())[::50]:
            found = streams.survey(key)
            assert isinstance(found, Found)
            got = streams.read(key, speaker, found.shortest)
            matrix = reader.read(features[key]).astype(np.float64)
            want = with_deltas(normalised(matrix, reader.read(stats[speaker]), True), 2)
            assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
            assert got.shape == (len(matrix), 39)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "words",
    ["", ",norm-vars=true", ",norm-vars=true,skip-dims=0:4", ",norm-means=false", ",cmvn=none"],
)
def test_normalisation_by_speaker(tmp_path, opened, words, compressed):
    """apply-cmvn, whatever kind of matrix is normalised as it is decoded."""
    matrices = random(7)
    write_cmvn(folder(tmp_path / "x", matrices, compressed=compressed), matrices)
    streams = opened(
        StreamOptions.parse(f"{tmp_path}/x{words},delta-order=0", StreamOptions(Path()))
    )
    for key, matrix in matrices.items():
        want = matrix
        if "none" not in words and "means" not in words:
            skip = (0, 4) if "skip" in words else ()
            stats = statistics(matrices, key[0])
            want = normalised(matrix, stats, "vars" in words, skip)
        assert np.allclose(read(streams, key), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["double", "float", "text"])
def test_normalisation_by_global_statistics(tmp_path, opened, kind):
    """From a file without a key, in the folder or elsewhere."""
    matrices = random(5)
    path = folder(tmp_path / "x", matrices)
    stats = statistics(matrices)
    if kind == "text":
        rows = "\n".join(" ".join(map(repr, row)) for row in stats.tolist())
        data = f" [\n{rows} ]\n".encode()
    else:
        sizes = struct.pack("<bibi", 4, 2, 4, 6)
        mark, values = (b"DM", "<f8") if kind == "double" else (b"FM", "<f4")
        data = b"\0B" + mark + b" " + sizes + stats.astype(values).tobytes()
    for word, file in ((",cmvn=global", path / "global_cmvn.stats"), ("", tmp_path / "stats")):
        file.write_bytes(data)
        word = word or f",cmvn-stats={file}"
        streams = opened(StreamOptions.parse(f"{path}{word}", PLAIN))
        for key, matrix in matrices.items():
            want = normalised(matrix, stats)
            assert np.allclose(read(streams, key), want, rtol=1e-4, atol=1e-4)


def test_order_is_that_of_the_folders(tmp_path, opened):
    """And an earlier, longer one is cut after its deltas are computed."""
    one, two = random(2), random(3, {key: n - 2 for key, n in LENGTHS.items()})
    folder(tmp_path / "one", one)
    folder(tmp_path / "two", two)
    first = StreamOptions(tmp_path / "one", cmvn="none", delta_order=1)
    second = replace(PLAIN, directory=tmp_path / "two")
    streams = opened(first, second)
    for key, frames in LENGTHS.items():
        found = streams.survey(key)
        assert isinstance(found, Found)
        assert (found.shortest, found.longest) == (frames - 2, frames)
        want = np.concatenate([with_deltas(one[key], 1)[: frames - 2], two[key]], axis=1)
        assert np.allclose(read(streams, key), want, atol=1e-5)


def test_what_cannot_be_pasted_is_skipped_with_the_reason(tmp_path, opened):
    """As Kaldi's paste-feats and nnet3-get-egs skip it."""
    empty = {"f": np.zeros((0, 0), np.float32)}  # as Kaldi writes no frames
    one = {**random(2, dict.fromkeys("abcde", 40)), **empty}
    folder(tmp_path / "one", one)
    folder(tmp_path / "two", {**random(2, {"a": 40, "b": 43, "c": 38, "d": 40}), **empty})
    rows = {"a": 4, "b": 4, "c": 13, "d": 15, "f": 1}
    folder(tmp_path / "i", random(2, rows), name="ivector_online")
    (tmp_path / "i" / "ivector_period").write_text("10")
    options = [replace(PLAIN, directory=tmp_path / name) for name in ("one", "two", "i")]
    streams = opened(*options)
    assert isinstance(streams.survey("a"), Found)
    assert streams.survey("b") == "pasted features of different lengths"
    assert isinstance(streams.survey("c"), Found)
    assert streams.survey("d") == "i-vectors and features of different lengths"
    assert streams.survey("e") == f"no features in {tmp_path / 'two'}"
    assert streams.survey("f") == "features without frames"
    assert streams.survey("g") == f"no features in {tmp_path / 'one'}"
    exact = opened(*options[:2], length_tolerance=0)
    assert exact.survey("c") == "pasted features of different lengths"


def test_lengths_said_spare_opening_archives(tmp_path, opened):
    """All but the first utterance's; a lie is found when the matrix is read."""
    path = folder(tmp_path / "x", random(2))
    (path / "utt2num_frames").write_text("a-1 40\na-2 123\nb-1 56\n")
    streams = opened(replace(PLAIN, directory=path))
    streams.survey("a-1")
    (path / "feats.ark").rename(path / "away")
    assert [streams.survey(key) for key in LENGTHS] == [(40, 40), (123, 123), (56, 56)]
    (path / "away").rename(path / "feats.ark")
    assert len(read(streams, "a-2")) == 123
    with pytest.raises(UserError, match=r"b-1: .*ark:\d+: 57 frames, but .*utt2num_frames says 56"):
        read(streams, "b-1")


def test_reading_needs_no_survey(tmp_path, opened):
    """The job that packs need not be the one that looked."""
    matrices = random(4)
    path = folder(tmp_path / "x", matrices)
    write_cmvn(path, matrices)
    options = StreamOptions(path)
    found = {key: opened(options).survey(key) for key in matrices}
    for key, place in found.items():
        fresh = opened(options).read(key, key[0], place.shortest - 3)
        want = with_deltas(normalised(matrices[key], statistics(matrices, key[0])), 2)
        assert np.allclose(fresh, want[:-3], atol=1e-5)


FAULTS = [
    ("feats.scp", "a-1 missing.ark:4\n", "a-1: missing.ark: No such file"),
    ("feats.scp", "a-1 cat x |\n", "feats.scp: a-1: a command"),
    ("cmvn.scp", None, r"x/cmvn.scp: no such file; .*cmvn=none, --no-cmvn"),
    ("cmvn.scp", "b b.ark:2\n", r"x/cmvn.scp: no statistics for speaker a"),
    ("utt2num_frames", "a-1 many\n", r"utt2num_frames:1: 'many', expected a number"),
    ("utt2num_frames", "a-1 39\n", r"a-1: .*feats.ark:4: 40 frames, but .* says 39"),
]


@pytest.mark.parametrize(("name", "text", "message"), FAULTS)
def test_faults_are_named(tmp_path, opened, name, text, message):
    matrices = random(4)
    path = folder(tmp_path / "x", matrices)
    write_cmvn(path, matrices)
    read(opened(StreamOptions(path)), "a-1")
    (path / name).unlink(missing_ok=True)
    if text is not None:
        (path / name).write_text(text)

    def use() -> None:
        opened(StreamOptions(path)).survey("b-1")
        read(opened(StreamOptions(path)), "a-1")

    with pytest.raises(UserError, match=message):
        use()


def test_another_dimension_than_before_is_an_error(tmp_path, opened):
    """Seen in the survey from the headers, else when it is read."""
    path = folder(tmp_path / "x", {**random(4, {"a-1": 40}), **random(5, {"b-1": 40})})
    for lengths in (None, "a-1 40\nb-1 40\n"):
        if lengths:
            (path / "utt2num_frames").write_text(lengths)
        streams = opened(replace(PLAIN, directory=path))
        read(streams, "a-1")
        with pytest.raises(UserError, match=r"b-1: .*ark:\d+: 5 features per frame, expected 4"):
            read(streams, "b-1")


def test_statistics_of_another_dimension_are_an_error(tmp_path, opened):
    path = folder(tmp_path / "x", random(4))
    write_cmvn(path, random(5))
    with pytest.raises(UserError, match=r"cmvn.scp: a: statistics of 5 features, expected 4"):
        read(opened(StreamOptions(path)), "a-1")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_are_named(tmp_path, opened, value):
    """Utterance, folder, frame and column; also doubles that are too large for a float."""
    path = tmp_path / "x"
    path.mkdir()
    matrix = np.zeros((5, 3))
    matrix[2, 1] = value
    with open(path / "feats.ark", "wb") as file:
        write_double(file, "a-1", matrix)
    (path / "feats.scp").write_text(f"a-1 {path}/feats.ark:4\n")
    with pytest.raises(UserError, match=rf"a-1: {path}: feature 1 of frame 2 is (nan|inf)"):
        read(opened(replace(PLAIN, directory=path)), "a-1")


def test_a_table_that_changed_is_an_error(tmp_path, opened):
    path = folder(tmp_path / "x", random(4))
    streams = opened(replace(PLAIN, directory=path))
    with pytest.raises(UserError, match=r"feats.scp: no line of z-1: has it changed"):
        streams.read("z-1", "a", 40)
    with pytest.raises(UserError, match=r"b-1: .*ark:\d+: 57 frames, expected 58"):
        streams.read("b-1", "b", 58)


def test_i_vectors_need_their_period_and_frames(tmp_path, opened):
    path = folder(tmp_path / "i", random(4), name="ivector_online")
    plain = folder(tmp_path / "x", random(4))
    options = StreamOptions.parse(str(path), StreamOptions(Path()))
    with pytest.raises(UserError, match="only i-vectors to paste"):
        opened(options)
    for text, message in ((None, "cannot read it"), ("0", "'0', expected"), ("x", "'x', expected")):
        if text:
            (path / "ivector_period").write_text(text)
        with pytest.raises(UserError, match=f"ivector_period: {message}"):
            opened(replace(PLAIN, directory=plain), options)


def test_options_of_a_word(tmp_path):
    """Keys beat defaults, which i-vectors have no use for."""
    defaults = StreamOptions(Path(), cmvn_options=CmvnOptions(norm_vars=True), delta_order=1)
    word = str(tmp_path)
    parse = StreamOptions.parse
    assert parse(word, defaults) == replace(defaults, directory=tmp_path)
    got = parse(f"{word},cmvn=global,norm-vars=false,skip-dims=1:2,delta-order=0", defaults)
    assert got == StreamOptions(
        tmp_path, "global", tmp_path / "global_cmvn.stats", CmvnOptions(True, False, (1, 2)), 0
    )
    assert parse(f"{word},cmvn-stats=/x", defaults).stats == Path("/x")
    assert not parse(f"{word},norm-means=false,norm-vars=false", defaults).normalises
    for options in (got, parse(word, defaults), parse(f"{word},cmvn=none", defaults)):
        again = parse(str(options), StreamOptions(Path()))
        assert str(again) == str(options)
    (tmp_path / "ivector_online.scp").touch()
    assert parse(word, defaults) == replace(PLAIN, directory=tmp_path)
    with pytest.raises(UserError, match="i-vectors are pasted as they are"):
        parse(f"{word},delta-order=0", defaults)


@pytest.mark.parametrize(
    "keys",
    [
        "cmvn=all",
        "norm-vars",
        "norm-vars=yes",
        "skip-dims=a",
        "delta-order=9",
        "x=1",
        "",
        "cmvn-stats=",
    ],
)
def test_bad_options_are_named(tmp_path, keys):
    with pytest.raises(UserError, match=f"{tmp_path},{keys}: .*must be cmvn=speaker"):
        StreamOptions.parse(f"{tmp_path},{keys}", PLAIN)


def test_bad_folders_and_combinations_are_named(tmp_path):
    with pytest.raises(UserError, match="none: no such folder"):
        StreamOptions.parse(f"{tmp_path}/none,cmvn=none", PLAIN)
    with pytest.raises(UserError, match="norm-vars=true needs norm-means=true"):
        StreamOptions.parse(f"{tmp_path},norm-vars=true,norm-means=false", PLAIN)
