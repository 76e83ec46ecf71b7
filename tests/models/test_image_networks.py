"""The image networks: what they take, how they start, and the structure that counts do not show."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from hpcddl.common.errors import UserError
from hpcddl.models import MODELS
from hpcddl.models.densenet import Dense, NormConv
from hpcddl.models.mobilenet import InvertedResidual
from hpcddl.models.preactivation import PreActivation
from hpcddl.models.reference import REFERENCES
from hpcddl.models.resnet import basic
from hpcddl.models.senet import SqueezeExcitation
from hpcddl.models.shufflenet import Unit

# the smallest image's side; the side of the last feature map of REFERENCES' image
SIDES = {
    "densenet121": (8, 4),
    "densenet40_12": (4, 8),
    "efficientnet_b0": (32, 1),
    "googlenet": (4, 8),
    "mobilenet": (16, 2),
    "mobilenet_v2": (8, 4),
    "resnet18": (8, 4),
    "resnet20": (4, 8),
    "resnet50": (32, 7),
    "resnext29": (4, 8),
    "senet18": (8, 4),
    "shufflenet_v2": (8, 4),
    "vgg19": (32, 1),
    "wide_resnet28_10": (4, 8),
}
PAPER_B = ("densenet40_12", "resnet20", "resnet50", "wide_resnet28_10")


@pytest.mark.parametrize("name", SIDES)
def test_images_shrink_as_the_papers(name: str) -> None:
    """Strides and pooling: down to the last feature map's side; the smallest image to one pixel."""
    smallest, last = SIDES[name]
    for side, expected in ((REFERENCES[name].shape[1], last), (smallest, 1)):
        with torch.device("meta"):
            model = MODELS[name]((3, side, side), 10).eval()
            assert model[:2](torch.zeros(1, 3, side, side)).shape[2:] == (expected, expected)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("densenet121", 121),
        ("densenet40_12", 40),
        ("mobilenet", 28),
        ("resnet18", 18),
        ("resnet20", 20),
        ("resnet50", 50),
        ("resnext29", 29),
    ],
)
def test_depth_is_the_names(name: str, layers: int) -> None:
    """Layers with weights, shortcuts aside, are as many as the network's name or paper says."""
    with torch.device("meta"):
        model = MODELS[name](REFERENCES[name].shape, 10)
    weighted = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in path
    ]
    assert len(weighted) == layers


@pytest.mark.parametrize("name", SIDES)
def test_pixels_are_normalised_first(name: str) -> None:
    """Paper B app. A.1: by the mean and standard deviation that the options give each channel."""
    grey = MODELS[name]((1, 32, 32), 10, mean=(10.0,), std=(4.0,))
    pixels = next(iter(grey.children()))
    assert torch.equal(pixels(torch.full((1, 1, 2, 2), 18.0)), torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("name", SIDES)
def test_other_images_are_refused(name: str) -> None:
    """Those that are too small, no squares, no images, or of other channels: in one line."""
    smallest, _ = SIDES[name]
    words = f"model {name}: takes square images of at least {smallest} x {smallest} pixels"
    for shape in ((3, smallest - 1, smallest - 1), (3, 32, 64), (21, 40), (300,)):
        with pytest.raises(UserError, match=words):
            MODELS[name](shape, 10)
    with pytest.raises(UserError, match=r"model.mean=\[.*\]: takes one number for each of 1 chann"):
        MODELS[name]((1, 32, 32), 10)


@pytest.mark.parametrize("name", PAPER_B)
def test_paper_b_starts_as_it_says(name: str) -> None:
    """Paper B app. A.2: N(0, 2 / fan in) for convolutions, N(0, 0.01^2) for the output layer."""
    torch.manual_seed(0)
    model = MODELS[name](REFERENCES[name].shape, 1000)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert model.output.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model.output.bias.any()


def test_squeeze_excitation_scales_channels() -> None:
    """Hu et al. eq. 2-4, written out."""
    torch.manual_seed(0)
    gate = SqueezeExcitation(32)
    down, up = gate[1], gate[3]
    x = torch.randn(2, 32, 4, 4)
    hidden = relu(x.mean((2, 3)) @ down.weight[:, :, 0, 0].T + down.bias)
    scale = torch.sigmoid(hidden @ up.weight[:, :, 0, 0].T + up.bias)
    torch.testing.assert_close(gate(x), x * scale[:, :, None, None])


@pytest.mark.parametrize("block", [basic, PreActivation, InvertedResidual])
def test_shortcuts_carry_the_input(block) -> None:
    """Where the shape stays and the body gives 0, x passes; where it changes, its projection."""
    options = {"expansion": 6} if block is InvertedResidual else {}
    x = torch.rand(2, 8, 6, 6)
    for width in (8, 16):
        made = block(8, width, 1, **options)
        *_, last = (m for m in made.body.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d))
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        out = made(x)
        assert out.shape == (2, width, 6, 6)
        assert out.any()
        if width == 8:
            assert torch.equal(out, x)


def test_dense_layers_add_channels() -> None:
    """Huang et al. eq. 2: those that there were stay first."""
    x = torch.randn(2, 6, 4, 4)
    out = Dense(NormConv(6, 3, 3))(x)
    assert out.shape == (2, 9, 4, 4)
    assert torch.equal(out[:, :6], x)


def test_shuffle_units_interleave() -> None:
    """Ma et al. fig. 3c: half of the channels pass, between those computed from the other half."""
    x = torch.randn(2, 8, 4, 4)
    unit = Unit(8, 8, 1).eval()
    out = unit(x)
    assert torch.equal(out[:, 0::2], x[:, :4])
    assert torch.equal(out[:, 1::2], unit.right(x[:, 4:]))
    assert Unit(8, 12, 2)(x).shape == (2, 12, 2, 2)
