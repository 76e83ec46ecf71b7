"""Networks that do not fit the data or the batch are refused before training."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hpcddl.common.errors import UserError
from hpcddl.common.flat import FlatWeights
from hpcddl.data import shard_set
from hpcddl.models import MODELS
from hpcddl.run.learner import parse_reference
from hpcddl.run.one_sample import check_micro_batch, check_scores
from tests.synthetic import write_shards


def test_a_network_must_score_every_frame(tmp_path: Path) -> None:
    """A bilstm does, and stays in training; an mlp has one answer for a whole window."""
    frames, _ = shard_set(path=str(write_shards(tmp_path / "shards")))
    fits = MODELS["bilstm"](frames.shape, frames.classes, layers=1, cells=4, bottleneck=4)
    check_scores(fits, "bilstm", frames)
    assert fits.training
    with pytest.raises(UserError, match=r"model.name=mlp: gives scores of shape .*; must be "):
        check_scores(MODELS["mlp"](frames.shape, frames.classes), "mlp", frames)


def network(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.BatchNorm2d(2), last)


def test_batch_norm_of_a_single_value_is_refused() -> None:
    """Five by five pixels are enough for one sample, a single one is not; nothing is left over."""
    shape = (1, 5, 5)
    for last, takes_one in (
        (nn.Flatten(), True),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2)), False),
    ):
        model = network(last)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        drawn = torch.get_rng_state()
        check_micro_batch(model, "x", shape, local_batch=5, accumulate=2)
        if takes_one:
            check_micro_batch(model, "x", shape, local_batch=3, accumulate=2)
        else:
            with pytest.raises(UserError, match="accumulate=2: cuts the local batch of 3 down"):
                check_micro_batch(model, "x", shape, local_batch=3, accumulate=2)
        assert model.training
        assert torch.equal(torch.get_rng_state(), drawn)
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, before[name])


def test_complex_weights_are_refused() -> None:
    model = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2) * 1j)])
    with pytest.raises(UserError, match="must have real ones"):
        FlatWeights(model)


@pytest.mark.parametrize("text", ["run@²", "run@-1", "run@", "@1", "run", "run@1e3", "run@٣"])
def test_references_to_epochs_are_digits(text: str) -> None:
    assert parse_reference("a@b@007") == (Path("a@b"), 7)
    with pytest.raises(UserError, match="must be RUN@EPOCH"):
        parse_reference(text)
