"""CMVN and deltas against their definitions."""

import numpy as np
import pytest

from data_prep.kaldi.features import (
    Cmvn,
    Deltas,
    check_finite,
    cmvn,
    delta_kernels,
    read_cmvn_options,
    whole_blocks,
)
from data_prep.kaldi.path_map import PathMap
from data_prep.kaldi.scp import MatrixReader
from hpcddl.common.errors import UserError
from tests.data_prep.tables import read_scp, read_table


def stats_of(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    sums = np.append(features.sum(0), len(features))
    return np.stack([sums, np.append((features**2).sum(0), 0)])


def normalised(features: np.ndarray, by: Cmvn) -> np.ndarray:
    features = features.copy()
    by.apply(features)
    return features


def add_deltas(features: np.ndarray, order: int) -> np.ndarray:
    """(T, D) -> (T, (order+1) D)."""
    frames, dimension = features.shape
    out = np.empty((whole_blocks(frames), (order + 1) * dimension), np.float32)
    deltas = Deltas(order)
    deltas.features(frames, dimension)[:] = features
    deltas.write(out)
    return out[:frames]


@pytest.mark.parametrize("norm_vars", [False, True])
def test_normalised_frames_have_mean_zero(norm_vars):
    """And variance one when asked for, and their own variance when not."""
    features = (5 + 3 * np.random.default_rng(0).standard_normal((500, 4))).astype(np.float32)
    got = normalised(features, cmvn(stats_of(features), norm_vars))
    assert got.dtype == np.float32
    assert np.allclose(got.mean(0), 0, atol=1e-5)
    assert np.allclose(got.std(0), 1 if norm_vars else features.std(0), rtol=1e-5)


def test_variances_have_kaldis_floor():
    """A constant feature is divided by 1e-10, not by zero."""
    assert np.allclose(cmvn(stats_of(np.full((4, 1), 2.0)), norm_vars=True).scale, 1e10)


@pytest.mark.parametrize(
    "stats",
    [np.zeros((2, 5)), np.full((2, 5), np.nan), np.ones((3, 5)), np.ones(5), 1e300 ** np.eye(2, 5)],
)
def test_bad_statistics_are_refused(stats):
    """No frames, NaN, another shape, or a mean that no float holds."""
    with pytest.raises(ValueError, match="CMVN statistics"):
        cmvn(stats)


def test_real_statistics_are_those_of_the_features(digits):
    """Kaldi's stored sums equal the sums over what the features decode to."""
    paths = PathMap.parse([f"/home/selma/kaldi/egs/digits={digits}"], near=digits)
    train = digits / "data" / "train"
    reader, stats = MatrixReader(paths), MatrixReader(paths)
    sums: dict[str, np.ndarray] = {}
    speaker_of = read_table(train / "utt2spk")
    for key, entry in read_scp(train / "feats.scp", paths).items():
        of = stats_of(reader.read(entry))
        sums[speaker_of[key]] = sums.get(speaker_of[key], 0) + of
    stored = read_scp(train / "cmvn.scp", paths)
    assert set(stored) == set(sums) == {"nicolas", "theo"}
    for speaker, entry in stored.items():
        assert np.allclose(stats.read(entry), sums[speaker], rtol=1e-6)
    reader.close()
    stats.close()


def loop_deltas(features: np.ndarray, order: int, window: int = 2) -> np.ndarray:
    """Kaldi's DeltaFeatures::Process, frame by frame and tap by tap."""
    scales = [[1.0]]
    for _ in range(order):
        last = scales[-1]
        offset = (len(last) - 1) // 2
        taps = [0.0] * (len(last) + 2 * window)
        for j in range(-window, window + 1):
            for k in range(-offset, offset + 1):
                taps[j + k + offset + window] += j * last[k + offset]
        normaliser = sum(j * j for j in range(-window, window + 1))
        scales.append([tap / normaliser for tap in taps])
    rows = []
    for frame in range(len(features)):
        row = []
        for taps in scales:
            offset = (len(taps) - 1) // 2
            value = np.zeros(features.shape[1])
            for j in range(-offset, offset + 1):
                clipped = min(max(frame + j, 0), len(features) - 1)
                value += taps[j + offset] * features[clipped].astype(np.float64)
            row.append(value)
        rows.append(np.concatenate(row))
    return np.array(rows)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 5, 40])
def test_deltas_equal_the_loop(order, frames):
    """Edges repeat the features' own first and last frame at every order."""
    features = np.random.default_rng(0).standard_normal((frames, 3)).astype(np.float32)
    got = add_deltas(features, order)
    assert got.shape == (frames, 3 * (order + 1))
    assert got.dtype == np.float32
    assert np.allclose(got, loop_deltas(features, order), atol=1e-6)


def test_deltas_of_a_line_are_its_slope():
    """Inside: slope, then zero."""
    line = np.arange(20, dtype=np.float32)[:, None] * 3
    got = add_deltas(line, 2)[4:-4]
    assert np.allclose(got[:, 1], 3)
    assert np.allclose(got[:, 2], 0, atol=1e-6)
    assert [len(kernel) for kernel in delta_kernels(2)] == [1, 5, 9]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(value):
    features = np.zeros((5, 3), np.float32)
    check_finite("utt", features)
    features[2, 1] = value
    with pytest.raises(UserError, match=f"utt: feature 1 of frame 2 is {value}.*1 are not"):
        check_finite("utt", features)


def test_cmvn_options(tmp_path):
    path = tmp_path / "cmvn_opts"
    assert read_cmvn_options(path) == (True, False, ())
    for text, want in {
        "\n": (True, False, ()),
        "--norm-means=true --norm-vars=true\n": (True, True, ()),
        "--norm-vars": (True, True, ()),
        "--norm-means=false": (False, False, ()),
        "--skip-dims=13:14:15\n": (True, False, (13, 14, 15)),
        "--skip-dims=": (True, False, ()),
    }.items():
        path.write_text(text)
        assert read_cmvn_options(path) == want
    for text in (
        "--skip-dims=13,14",
        "--skip-dims=-1",
        "--norm-vars=yes",
        "--norm-means=false --norm-vars=true",
        "norm-vars=true",
        "--reverse=true",
    ):
        path.write_text(text)
        with pytest.raises(UserError, match="cmvn_opts: "):
            read_cmvn_options(path)


def test_skipped_dimensions_stay_as_they_are():
    """apply-cmvn's --skip-dims: the others are normalised as without it."""
    features = (5 + 3 * np.random.default_rng(0).standard_normal((50, 4))).astype(np.float32)
    got = normalised(features, cmvn(stats_of(features), True, (1, 3)))
    want = normalised(features, cmvn(stats_of(features), True))
    assert np.array_equal(got[:, [1, 3]], features[:, [1, 3]])
    assert np.array_equal(got[:, [0, 2]], want[:, [0, 2]])
    with pytest.raises(ValueError, match=r"skip-dims has 4: must be 0 \.\. 3"):
        cmvn(stats_of(features), True, (1, 4))


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 100])
def test_deltas_of_fewer_frames_than_there_are(frames):
    """Written into columns of a wider array, from features that go on."""
    features = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    wide = np.zeros((whole_blocks(frames), 15), np.float32)
    deltas = Deltas(2)
    for _ in range(2):  # the buffer is used again
        deltas.features(*features.shape)[:] = features
        deltas.write(wide[:, 2:11])
    assert np.allclose(wide[:frames, 2:11], loop_deltas(features, 2)[:frames], atol=1e-6)
    assert not wide[:, :2].any()
    assert not wide[:, 11:].any()
