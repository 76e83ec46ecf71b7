"""`hpcddl models`."""

import re

import pytest

from hpcddl.cli import main
from hpcddl.common.options import options_of
from hpcddl.models import MODELS

Capture = pytest.CaptureFixture[str]


def test_every_network_has_a_line(capsys: Capture) -> None:
    """Name, reference input and classes, parameters, MiB as float32, and paper A's figure."""
    assert main(["models"]) == 0
    header, *lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert header == "model input classes parameters MiB paper A"
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert "bilstm 21 x 260 32,000 43,154,944 164.62 164.62" in lines
    assert "resnet18 3 x 32 x 32 10 11,173,962 42.63 42.63" in lines
    assert "resnet20 3 x 32 x 32 10 269,722 1.03" in lines


@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_network(name: str, capsys: Capture) -> None:
    """Every parameter is in exactly one line; every option is named with its default."""
    assert main(["models", name]) == 0
    printed = capsys.readouterr().out
    total = re.match(rf"{name}: ([\d,]+) trainable parameters", printed)
    assert total
    _, layers = re.split(r"layer +kind +output +parameters\n", printed)
    counts = [line.split()[-1] for line in layers.splitlines()]
    assert sum(int(c.replace(",", "")) for c in counts) == int(total[1].replace(",", ""))
    for option, field in options_of(MODELS[name]).model_fields.items():
        assert re.search(rf"^  model\.{option} +{re.escape(str(field.default))}$", printed, re.M)


def test_a_layer_has_its_shape(capsys: Capture) -> None:
    """The output for one sample: 512 channels of 4 x 4 after ResNet-18's last block."""
    assert main(["models", "resnet18"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"layers\.8 +Residual +512 x 4 x 4 +4,720,640$", printed, re.M)


def test_an_unknown_network_is_one_line(capsys: Capture) -> None:
    assert main(["models", "resnet81"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hpcddl: error: model 'resnet81': must be one of bilstm, ")
    assert error.endswith("; nearest: 'resnet18'\n")
