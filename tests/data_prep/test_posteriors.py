"""`hpcddl evaluate --posteriors`: scores of whole data folders, as Kaldi's own reader sees them."""

import json
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaldi_native_io
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from data_prep.kaldi import evaluate
from data_prep.kaldi.alignments import alignment_files, read_alignments
from data_prep.kaldi.frame_scores import log_posteriors, window_starts
from data_prep.kaldi.transition_model import find_model, read_transition_model
from hpcddl.cli import main
from hpcddl.cluster.world import World
from hpcddl.data.manifest import read_manifest
from hpcddl.data.shards import open_split
from hpcddl.run.trained import load_trained
from hpcddl.training.evaluate import log_prior
from tests.conftest import Launch
from tests.synthetic import write_recipe, write_shards

T = 21
Run = Callable[..., Path]


def train(out: Path, shards: Path, epochs: int) -> Path:
    """A run of one learner that has learned something."""
    recipe = write_recipe(out.with_suffix(".yaml"), shards, "ssgd")
    words = ["model.cells=32", "model.bottleneck=16", f"epochs={epochs}", "schedule.rate=0.3"]
    assert main(["train", str(recipe), *words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus_once: Path) -> Path:
    folder = tmp_path_factory.mktemp("posteriors")
    words = ["--data", str(corpus_once / "data"), "--ali", str(corpus_once / "ali")]
    assert main(["prep", "kaldi", *words, "--out", str(folder / "shards")]) == 0
    return train(folder / "run", folder / "shards", 20)


def read(ark: Path) -> dict[str, NDArray[np.float32]]:
    """By Kaldi's reader, in file order."""
    with kaldi_native_io.SequentialFloatMatrixReader(f"ark:{ark}") as reader:
        return {key: np.array(matrix) for key, matrix in reader}


def table(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())


def labels(alignments: Path) -> dict[str, NDArray[np.int32]]:
    model = read_transition_model(find_model(alignments))
    return {
        key: model.pdfs(ids)
        for path in alignment_files(alignments)
        for key, ids in read_alignments(path)
    }


def check(ark: Path, data: Path, shards: Path) -> dict[str, NDArray[np.float32]]:
    """Utterances, frames, columns, order, and the law that posteriors sum to one."""
    found = read(ark)
    frames = table(data / "utt2num_frames")
    assert list(found) == list(table(data / "feats.scp"))
    prior = log_prior(np.array(read_manifest(shards).class_counts)).numpy()
    for key, scores in found.items():
        assert scores.shape == (int(frames[key]), len(prior))
        np.testing.assert_allclose(np.exp(scores + prior).sum(1), 1, rtol=1e-4)
    by_scp = kaldi_native_io.RandomAccessFloatMatrixReader(f"scp:{ark.with_suffix('.scp')}")
    for key in list(found)[::3]:
        np.testing.assert_array_equal(by_scp[key], found[key])
    by_scp.close()
    return found


def test_scores_as_kaldi_reads_them(
    run: Path, corpus_once: Path, tmp_path: Path, command: Launch
) -> None:
    """Shapes, order and sums; argmax without prior is about as right as the run's evaluation."""
    data, shards, ark = corpus_once / "data", run.parent / "shards", tmp_path / "a.ark"
    done = command("evaluate", run, "--feats", data, "--posteriors", ark)
    assert done.returncode == 0, done.stderr
    check(ark, data, shards)
    plain = tmp_path / "plain.ark"
    command("evaluate", run, "--feats", data, "--posteriors", plain, "--prior-scale", "0")
    scores, right = read(plain), labels(corpus_once / "ali")
    heldout = table(shards / "heldout.utt2spk")
    hits = np.concatenate([scores[key].argmax(1) == right[key] for key in heldout])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["heldout_accuracy"] > 3 * summary["prior_accuracy"]
    assert abs(hits.mean() - summary["heldout_accuracy"]) < 0.1


def test_one_and_two_ranks_write_the_same_bytes(
    run: Path, corpus_once: Path, tmp_path: Path, hpcddl: Launch
) -> None:
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        words = ("--feats", corpus_once / "data", "--posteriors", folder / "a.ark")
        done = hpcddl("evaluate", run, *words, ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["a.ark", "a.scp"]
    one, two = (tmp_path / str(ranks) for ranks in (1, 2))
    assert (one / "a.ark").read_bytes() == (two / "a.ark").read_bytes()
    assert (one / "a.scp").read_text() == (two / "a.scp").read_text().replace(str(two), str(one))


def test_features_are_the_shards_bit_for_bit(
    corpus_once: Path, tmp_path: Path, command: Launch
) -> None:
    """Folders with options of their own, without naming an option again."""
    data, shards = corpus_once / "data", tmp_path / "shards"
    pasted = (f"{data},norm-vars=true,skip-dims=0:3,delta-order=1", f"{data},cmvn=none")
    words = [word for one in pasted for word in ("--data", one)]
    words += ["--delta-order", "0", "--ali", corpus_once / "ali", "--dtype", "float16"]
    assert command("prep", "kaldi", *words, "--out", shards).returncode == 0
    run = train(tmp_path / "run", shards, 1)
    parser = ArgumentParser()
    evaluate.add_arguments(parser)
    arguments = parser.parse_args([str(run), "--feats", str(data), "--feats", str(data)])
    split = open_split(shards, "heldout")
    names = list(table(shards / "heldout.utt2spk"))
    windows, _ = split.batch(np.arange(len(split)))
    utterance, start = (
        np.concatenate([r[name].map(p) for r, p in zip(split.regions, split.paths, strict=True)])
        for name in ("utterance", "start")
    )
    with evaluate.scorer(arguments, load_trained(run, World.create())) as scorer:
        for window, number, first in zip(windows, utterance, start, strict=True):
            features = scorer.features(names[number], int(first) + T)
            assert torch.equal(features[first:], window)


def test_the_real_digits(digits: Path, tmp_path: Path, command: Launch) -> None:
    """By stale paths: utterances shorter than a window, and a folder that was not packed.

    In the frames that held-out windows hold, argmax is about as right as the run's evaluation.
    """
    shards = tmp_path / "shards"
    words = ["--data", digits / "data" / "train", "--ali", digits / "exp" / "tri1"]
    words += ["--map", f"/home/selma/kaldi/egs/digits={digits}", "--out", shards]
    assert command("prep", "kaldi", *words).returncode == 0
    run = train(tmp_path / "run", shards, 4)
    found = {}
    for name in ("test", "train"):
        data, ark = digits / "data" / name, tmp_path / f"{name}.ark"
        done = command("evaluate", run, "--feats", data, "--posteriors", ark)
        assert done.returncode == 0, done.stderr
        found[name] = check(ark, data, shards)
    assert (len(found["test"]), len(found["train"])) == (500, 1000)
    assert min(map(len, found["train"].values())) < T
    prior = log_prior(np.array(read_manifest(shards).class_counts)).numpy()
    right = labels(digits / "exp" / "tri1")
    hits = []
    for key in table(shards / "heldout.utt2spk"):
        held = len(right[key]) // T * T
        hits.append((found["train"][key] + prior)[:held].argmax(1) == right[key][:held])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["heldout_accuracy"] > 3 * summary["prior_accuracy"]
    assert abs(np.concatenate(hits).mean() - summary["heldout_accuracy"]) < 0.05


class Positions(nn.Module):
    """Scores that depend on a frame and on where in the window it is."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        place = torch.arange(windows.shape[1])[:, None] / 7
        return torch.sin(windows + place) * (1 + place)


@pytest.mark.parametrize("hop", [1, 10, T])
@pytest.mark.parametrize("frames", [1, T - 1, T, T + 1, 3 * T + 5])
def test_mean_over_the_windows_that_hold_a_frame(
    frames: int, hop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to a loop over frames and windows, in batches of any number of windows."""
    monkeypatch.setattr("data_prep.kaldi.frame_scores._BATCH_BYTES", 3 * T * 4 * 8)
    features = torch.randn(frames, 4, dtype=torch.float64)
    found = log_posteriors(Positions(), features, classes=4, window=T, hop=hop)
    assert found.shape == (frames, 4)
    longer = torch.cat([features, features[-1:].repeat(max(0, T - frames), 1)])
    starts = window_starts(len(longer), T, hop)
    assert starts[-1] + T == len(longer)
    for frame in range(frames):
        held = [start for start in starts if start <= frame < start + T]
        logs = [
            Positions()(longer[None, start : start + T])[0, frame - start].log_softmax(-1)
            for start in held
        ]
        expected = torch.stack(logs).mean(0).log_softmax(-1)
        torch.testing.assert_close(found[frame], expected)


def fails(done: Any, message: str, folder: Path) -> None:
    """One line of ours with status 2, and no file of any name."""
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert done.stderr.count("hpcddl: ") == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("feats", "words", "message"),
    [
        ([], [], "--feats: missing"),
        (["data"], ["--hop", "22"], "--hop: 22: must be at most the 21 frames"),
        (["data"], ["--prior-scale", "-1"], "--prior-scale: -1: must be at least 0"),
        (["data"], ["--json"], "--json: not with --posteriors"),
        (["data", "data"], [], "--feats: 2 given, the shards were packed from 1: "),
        (["none"], [], "none: no such folder"),
        (["data,delta-order=0"], [], "--feats: 13 features per frame, the network takes 39"),
        (["data,delta-order=x"], [], "delta-order=x; must be "),
        (["ali"], [], "feats.scp: cannot read it"),
    ],
)
def test_bad_options_are_one_line(
    run: Path, corpus_once: Path, tmp_path: Path, command: Launch, feats, words, message
) -> None:
    folders = [word for one in feats for word in ("--feats", corpus_once / one)]
    done = command("evaluate", run, *folders, "--posteriors", tmp_path / "a.ark", *words)
    fails(done, message, tmp_path)


def test_an_utterance_that_cannot_be_scored(run: Path, corpus: Path, hpcddl: Launch) -> None:
    """On two ranks: no speaker, no archive; found by one rank, said once, nothing left."""
    out, data = corpus / "out", corpus / "data"
    out.mkdir()
    words = ("--feats", data, "--posteriors", out / "a.ark")
    last = list(table(data / "feats.scp"))[-1]
    lines = (data / "feats.scp").read_text()
    (data / "feats.scp").write_text(lines.replace(f"{last} /", f"{last} /nowhere/"))
    fails(hpcddl("evaluate", run, *words, ranks=2), f"{last}: /nowhere/", out)
    (data / "feats.scp").write_text(lines)
    pairs = (data / "utt2spk").read_text().splitlines(keepends=True)
    (data / "utt2spk").write_text("".join(pairs[:-1]))
    fails(hpcddl("evaluate", run, *words, ranks=2), f"{last}: no speaker in ", out)


def test_shards_of_another_kind(
    tmp_path: Path, corpus_once: Path, run: Path, command: Launch
) -> None:
    """A set that does not say how its features were made, and folders of another kind."""
    other, out = train(tmp_path / "other", write_shards(tmp_path / "s"), 1), tmp_path / "out"
    out.mkdir()
    words = ("--feats", corpus_once / "data", "--posteriors", out / "a.ark")
    message = "the network's shards do not say how their features were made"
    fails(command("evaluate", other, *words), message, out)
    ivectors = tmp_path / "ivectors"
    shutil.copytree(corpus_once / "data", ivectors)
    (ivectors / "ivector_online.scp").touch()
    words = ("--feats", ivectors, "--posteriors", out / "a.ark")
    fails(command("evaluate", run, *words), "must be a folder with feats.scp", out)
