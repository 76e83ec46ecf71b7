"""Networks have exactly the papers' sizes."""

import torch

from hpcddl.models.bilstm import bilstm
from hpcddl.optimizers.groups import parameter_groups


def test_bilstm_is_the_papers() -> None:
    """Paper A table 1: 164.62 MiB = 43,154,944 weights; a score for every frame and class."""
    with torch.device("meta"):
        model = bilstm((21, 260), 32000)
    count = sum(p.numel() for p in model.parameters())
    assert count == 43_154_944
    assert round(4 * count / 2**20, 2) == 164.62
    assert bilstm((21, 6), 10, layers=2, cells=4, bottleneck=3)(torch.zeros(2, 21, 6)).shape == (
        2,
        21,
        10,
    )


def test_batch_norm_never_decays() -> None:
    """Paper B app. A.4; every trainable weight is in exactly one group."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    decaying, exempt = parameter_groups(model, 0.1)
    assert [p.shape for p in decaying["params"]] == [(4, 3), (4,)]
    assert [p.shape for p in exempt["params"]] == [(4,), (4,)]
    assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)
