"""A language model over streams: what it carries, what it learns, how it goes on."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpcddl.cluster.world import World
from hpcddl.common.errors import UserError
from hpcddl.data.network_input import network_input
from hpcddl.data.prefetch import Prefetcher
from hpcddl.data.text import TokenWindows, open_text
from hpcddl.models import hidden_state
from hpcddl.models.lstm_lm import lstm_lm
from hpcddl.run import checkpoint
from hpcddl.strategies import STRATEGIES
from hpcddl.training.accumulate import backward
from hpcddl.training.evaluate import evaluate, log_prior
from tests.conftest import Launch
from tests.synthetic import WORDS, last_of_each, write_shards, write_text
from tests.test_restart import CASES, killed_after, train_all
from tests.test_train import lines, refused, summary, without_times

BPTT, BATCH, RATE, CLIP = 6, 4, 5.0, 0.5


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 windows to train on, 20 and one word held out."""
    return write_text(tmp_path_factory.mktemp("data") / "text")


def write_recipe(path: Path, text: Path, strategy: str = "ssgd", more: str = "") -> Path:
    """A recipe of a tiny language model in float64."""
    path.write_text(
        last_of_each(f"""\
seed: 5
epochs: 2
global_batch: {BATCH}
model: {{name: lstm_lm, layers: 2, cells: 8, dropout: 0.0}}
data: {{name: text, path: {text}, bptt: {BPTT}, heldout_streams: 3}}
schedule: {{name: constant, rate: {RATE}}}
clip_norm: {CLIP}
dtype: float64
optimizer: sgd
strategy: {strategy}
{more}
""")
    )
    return path


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    model = lstm_lm((BPTT,), WORDS, layers=2, cells=8, dropout=dropout)
    return model.double()


def windows(rows: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` windows of each of `rows` streams, one after the other, and the words after."""
    torch.manual_seed(1)
    words = torch.randint(0, WORDS, (rows, count * BPTT + 1))
    return words[:, :-1], words[:, 1:]


def test_the_papers_size() -> None:
    """Words x 650 once, 3 x 4 x (2 x 650^2 + 2 x 650), and the output's bias."""
    assert sum(p.numel() for p in lstm_lm((30,), 33_278).parameters()) == 31_819_578
    tied, untied = (lstm_lm((30,), WORDS, cells=8, tied=tied) for tied in (True, False))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert sizes[1] - sizes[0] == WORDS * 8
    with pytest.raises(UserError, match=r"takes windows of words, .* samples of \(5, 6\)"):
        lstm_lm((5, 6), 10)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_carried_state_is_one_long_sequence(parts: int) -> None:
    """Windows in turn give the scores of the whole stream, also when the batch goes in parts."""
    model = network()
    words, _ = windows(5, 4)
    with torch.no_grad():
        whole = model(words)
        hidden_state.carry(model, parts)
        for window, expected in zip(words.split(BPTT, 1), whole.split(BPTT, 1), strict=True):
            scores = torch.cat([model(part) for part in window.tensor_split(parts)])
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-15)
        hidden_state.reset(model)
        first = torch.cat([model(part) for part in words[:, :BPTT].tensor_split(parts)])
        torch.testing.assert_close(first, whole[:, :BPTT], rtol=0, atol=1e-15)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_carry_their_own_states(parts: int) -> None:
    """Loss and gradient are the batch's, window after window."""
    one, other = network(), network()
    hidden_state.carry(one, 1)
    hidden_state.carry(other, parts)
    words, after = windows(5, 3)
    for features, labels in zip(words.split(BPTT, 1), after.split(BPTT, 1), strict=True):
        one.zero_grad()
        other.zero_grad()
        losses = backward(one, features, labels, 1), backward(other, features, labels, parts)
        torch.testing.assert_close(*losses, rtol=1e-14, atol=0)
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-15)


def test_the_loop_is_the_one_by_hand(text: Path, tmp_path: Path, command: Launch) -> None:
    """Truncated backpropagation: states go on within an epoch, begin at zero, give no gradient."""
    recipe = write_recipe(tmp_path / "r.yaml", text)
    assert command("train", recipe, "--out", tmp_path / "run").returncode == 0
    model = network()
    stream = read(open_text(text, "train", BPTT))
    features, labels = (part.view(BATCH, -1) for part in (stream[:480], stream[1:481]))
    for _ in range(2):
        state = None
        for window, after in zip(features.split(BPTT, 1), labels.split(BPTT, 1), strict=True):
            model.zero_grad()
            outputs, state = model.lstm.lstm(model.embedding(window), state)
            state = tuple(tensor.detach() for tensor in state)
            cross_entropy(model.output(outputs).flatten(0, 1), after.flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            with torch.no_grad():
                for p in model.parameters():
                    p -= RATE * p.grad
    saved = checkpoint.at_epoch(tmp_path / "run", 2).learner(0)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(saved["strategy"]["model"][name], tensor, rtol=0, atol=1e-13)
    assert saved["hidden"] == [[None]]


def read(split: TokenWindows) -> Tensor:
    """The words of the split's windows, and the one after the last."""
    features, labels = split.batch(np.arange(len(split)))
    return torch.cat([features.flatten(), labels[-1, -1:]])


@pytest.mark.parametrize("streams", [1, 3, 20, 30])
def test_perplexity_is_that_of_the_streams(streams: int, text: Path) -> None:
    """exp of the mean loss over every word after the first, each stream read from zeros."""
    model, world = network(dropout=0.5), World.create()
    heldout = open_text(text, "heldout", BPTT, streams)
    hidden_state.carry(model, 2)
    before = list(model.lstm.states)
    result = evaluate(
        model, Prefetcher(heldout, "cpu"), heldout, 2, log_prior(heldout.class_counts), world
    )
    assert list(model.lstm.states) == before
    stream, total = read(heldout), 0.0
    bounds = [len(heldout) * s // streams * BPTT for s in range(streams + 1)]
    pure = network().eval()
    with torch.no_grad():
        for begin, end in pairwise(bounds):
            if begin < end:
                scores = pure(stream[None, begin:end])[0]
                labels = stream[begin + 1 : end + 1]
                total += cross_entropy(scores, labels, reduction="sum").item()
    assert result.predictions == 120
    assert result.loss == pytest.approx(total / 120, rel=1e-13)
    assert result.perplexity == pytest.approx(np.exp(total / 120), rel=1e-12)


def test_ssgd_reads_the_same_streams_on_any_ranks(
    text: Path, tmp_path: Path, hpcddl: Launch, command: Launch
) -> None:
    """Without dropout 1 and 2 learners are one run: each stream's state lies with its learner."""
    recipe = write_recipe(tmp_path / "r.yaml", text, more="epochs: 6")
    assert command("train", recipe, "--out", tmp_path / "1").returncode == 0
    done = hpcddl("train", recipe, "--out", tmp_path / "2", ranks=2)
    assert done.returncode == 0, done.stderr
    one, two = (
        [line["heldout_perplexity"] for line in lines(tmp_path / ranks, "evaluation")]
        for ranks in "12"
    )
    np.testing.assert_allclose(one, two, rtol=1e-10)
    result = summary(tmp_path / "2")
    assert result["heldout_perplexity"] == two[-1] < np.exp(result["prior_loss"])
    assert f"perplexity {two[-1]:.2f}" in done.stdout


def test_resumed_within_an_epoch_is_bit_for_bit_the_same(
    text: Path, tmp_path: Path, hpcddl: Launch, command: Launch
) -> None:
    """The states of every micro-batch go on; on another number of learners they begin at zero."""
    more = "accumulate: 2\nlog_every: 1\ncheckpoint: {every_steps: 7, keep_last: 99}"
    recipe = write_recipe(tmp_path / "r.yaml", text, "{name: local_sgd, steps: 2}", more)
    words = ["train", recipe, "model.dropout=0.3", "--resume", "--out", tmp_path / "run"]
    assert hpcddl(*words, ranks=2).returncode == 0
    run, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(run, whole)
    killed_after(run, 28)  # in the second epoch of 20 updates
    (layer,) = checkpoint.newest(run).learner(1)["hidden"]
    assert [h.shape for h, _ in layer] == [(2, 1, 8)] * 2
    done = hpcddl(*words, ranks=2)
    assert "resumed after 28 updates, in epoch 2" in done.stdout, done.stderr
    assert summary(run)["weights_sha256"] == summary(whole)["weights_sha256"]
    for kind in ("train", "evaluation"):
        same = [without_times(r) for r in lines(run, kind)]
        assert same == [without_times(r) for r in lines(whole, kind)]
    killed_after(run, 28)
    assert "2 learners, hidden states start from zeros\n" in command(*words).stdout


def test_every_strategy_trains_it(text: Path, tmp_path: Path) -> None:
    """One epoch on two learners: a perplexity well below the number of words, where it began."""
    for name, strategy in CASES.items():
        rate = "schedule: {name: constant, rate: 0.02}" if name == "majority_vote" else ""
        write_recipe(tmp_path / f"{name}.yaml", text, strategy.replace("size: 2", "size: 1"), rate)
    train_all(tmp_path, "epochs=1", ranks=2)
    assert {name.split()[0] for name in CASES} == set(STRATEGIES)
    for name in CASES:
        assert summary(tmp_path / name)["heldout_perplexity"] < 0.8 * WORDS, name


def test_words_stay_numbers_of_words() -> None:
    """Pixels become floats, as vectors do."""
    for stored in (torch.uint8, torch.float32):
        assert network_input(torch.ones(2, dtype=stored), torch.float64).dtype == torch.float64
    assert network_input(torch.ones(2, dtype=torch.int64), torch.float64).dtype == torch.int64


def test_networks_and_data_must_fit(text: Path, tmp_path: Path, command: Launch) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", text)
    run = ["--out", tmp_path / "run"]
    words = "model.name=mlp: takes numbers, data.name=text has words"
    refused(command("train", recipe, "model=mlp", *run), words)
    frames = write_shards(tmp_path / "frames")
    done = command("train", recipe, "data.name=shards", f"data.path={frames}", *run)
    refused(done, "model lstm_lm: takes windows of words, the data has samples of (5, 6)")
