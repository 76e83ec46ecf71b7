"""`hpcddl bench networks`: plain networks compute the same, numbers are sane."""

import json
import math

import pytest
import torch

from hpcddl.bench.networks import NETWORKS, as_text, plain
from hpcddl.models import MODELS
from tests.conftest import Launch


@pytest.mark.parametrize("name", ["resnet20", "densenet40_12"])
def test_plain_networks_have_the_same_scores(name: str) -> None:
    """And the same weights: what is timed is the same work."""
    torch.manual_seed(0)
    model, pixels = MODELS[name]((3, 32, 32), 10), torch.randint(256, (2, 3, 32, 32)).float()
    scores = model(pixels)
    weights = {id(p) for p in model.parameters()}
    network, images = plain(model, pixels)
    assert {id(p) for p in network.parameters()} == weights
    torch.testing.assert_close(network(images), scores, rtol=1e-5, atol=1e-5)


def test_measures_what_it_is_told(command: Launch) -> None:
    done = command(
        *("bench", "networks", "--networks", "resnet20", "--batch", 2, "--rounds", 2, "--json")
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    measured = result["networks"]["resnet20"]
    assert set(measured["cpu_seconds"]) == {"plain", "ours", "channels last"}
    assert all(math.isfinite(t) and t > 0 for t in measured["cpu_seconds"].values())
    assert measured["to_plain"] > 0
    assert "\nresnet20 " in as_text(result)


def test_all_of_the_papers_small_networks_are_measured() -> None:
    """Paper A's ten and paper B's three."""
    assert len(NETWORKS) == 13


def test_bad_input_is_named(command: Launch) -> None:
    done = command("bench", "networks", "--networks", "resnet50")
    assert done.returncode == 2
    assert "--networks: resnet50: must be one of densenet121" in done.stderr
