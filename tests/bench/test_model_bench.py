"""`hpcddl bench model`: operations as counted by hand, times that are there."""

import json

import pytest

from hpcddl.bench.model import costs
from hpcddl.models import MODELS
from hpcddl.models.reference import REFERENCES
from tests.conftest import Launch


def test_operations_of_resnet20_by_hand() -> None:
    """2 for each product of a 3 x 3 convolution: a stem, then 3 stages of 6 at 32, 16, 8 pixels.

    Backward takes as many again for the weights, and for all inputs but the images.
    """
    stem = 2 * 9 * 3 * 16 * 32**2
    stages = 6 * 2 * 9 * 16**2 * 32**2
    for width, size in ((32, 16), (64, 8)):
        stages += 2 * 9 * (width // 2 + 5 * width) * width * size**2
    forward = stem + stages + 2 * 64 * 10
    counted = costs("resnet20")
    assert counted["parameters"] == 269_722
    assert counted["forward_flops"] == forward
    assert counted["flops"] == 3 * forward - stem
    assert counted["forward_flops_per_parameter"] == forward / 269_722


def test_operations_of_a_grouped_convolution_backward() -> None:
    """MobileNet's are mostly depthwise; the law is ResNet-20's."""
    counted = costs("mobilenet")
    assert counted["flops"] == 3 * counted["forward_flops"] - 2 * 9 * 3 * 32 * 32**2


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_is_counted(name: str) -> None:
    """Backward costs one to two forwards more: no gradient goes back to samples or word indices."""
    counted = costs(name)
    assert 2 <= counted["flops"] / counted["forward_flops"] <= 3
    assert counted["forward_flops"] > counted["parameters"] or REFERENCES[name].shape == (30,)


def test_times_every_batch(command: Launch) -> None:
    done = command(
        "bench", "model", "mlp", "--batches", "16,64", "--samples", 64, "--repeats", 1, "--json"
    )
    result = json.loads(done.stdout)
    seconds = result["models"]["mlp"]["seconds"]
    assert list(seconds) == ["16", "64"]
    assert all(value > 0 for value in seconds.values())
    text = command("bench", "model", "lstm_lm").stdout
    assert text.splitlines()[1].split()[:3] == ["lstm_lm", "31,819,578", "121.38"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet21"], "model 'resnet21': nearest: 'resnet20'"),
        (["mlp", "--batches", "3"], "--batches: 3: must divide --samples, 4096"),
        (["mlp", "--batches", "0"], "--batches: 0: must be a whole number, at least 1"),
        (["mlp", "--batches", "a"], "--batches: a: must be a whole number, at least 1"),
        (["mlp", "--repeats", "0"], "--repeats: 0: must be a whole number, at least 1"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, command: Launch) -> None:
    done = command("bench", "model", *words)
    assert done.returncode == 2
    assert message in done.stderr
